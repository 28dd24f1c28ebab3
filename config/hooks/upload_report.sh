#!/bin/sh
# Copies the report of this episode to S3, so that it outlives the machine: the last step, and an optional one.
#
#   REPORT_DIR  where reports are written: what report-dir says
#   S3_URI      where to: s3://bucket/reports
#
# `aws s3 sync s3://bucket/reports reports && watchdog report reports` reads them. What the machine lives to write after
# this step is not in S3: the report says of this very step that it runs. That of a rehearsal goes below rehearsal/.
set -eu

fail() {
    echo "not uploaded: $*" >&2
    exit 1
}

command -v aws >/dev/null || fail "the aws command is not on PATH ($PATH)"
[ -n "${REPORT_DIR:-}" ] || fail "REPORT_DIR is not set; it is the directory that report-dir names"
case ${S3_URI:-} in
s3://?*) target=${S3_URI%/} ;;
*) fail "S3_URI is '${S3_URI:-}', not s3://BUCKET/PREFIX" ;;
esac
if [ "${SPOT_REHEARSAL:-}" = 1 ]; then target=$target/rehearsal; fi

machine=$(printf %s "${SPOT_INSTANCE_ID:-}" | tr -c 'A-Za-z0-9:_-' _)
name=${machine:-machine}-${SPOT_EPISODE:-}.json
report=$REPORT_DIR/$name

# The report is written beside the steps and not before them. It tells how those before this one ended once it tells that
# this one began.
waited=0
until grep -qs "\"name\":\"${SPOT_STEP:-}\"[^}]*\"started\"" "$report"; do
    [ "$waited" -lt 15 ] || break
    waited=$((waited + 1))
    sleep 0.2
done
[ -e "$report" ] || fail "there is no $report; is REPORT_DIR what report-dir says?"

left=$((${SPOT_SECONDS_LEFT:-60} - 5))
[ "$left" -gt 0 ] || fail "the time is over"
status=0
timeout --kill-after=1 "$left" aws s3 cp --only-show-errors "$report" "$target/$name" || status=$?
case $status in
0) echo "uploaded: $target/$name" ;;
124 | 137) fail "not done within $left s" ;;
*) fail "aws ended with exit status $status" ;;
esac
