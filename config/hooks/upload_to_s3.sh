#!/bin/sh
# Copies the newest complete checkpoint to S3. The completion mark goes last: where the mark is, everything is.
#
#   CHECKPOINT_DONE  glob of the marks that complete a local checkpoint: /mnt/nvme/ckpt/*/DONE
#   S3_URI           where to: s3://bucket/job
#
# A resumed job takes the newest prefix that holds the mark, and ignores the others. A rehearsal copies as well, since
# nothing else tells how long it takes, but below rehearsal/, where no resumed job looks.
set -eu

fail() {
    echo "not uploaded: $*" >&2
    exit 1
}

command -v aws >/dev/null || fail "the aws command is not on PATH ($PATH)"
[ -n "${CHECKPOINT_DONE:-}" ] || fail "CHECKPOINT_DONE is not set; it is the glob of the marks that complete a checkpoint"
case ${S3_URI:-} in
s3://?*) target=${S3_URI%/} ;;
*) fail "S3_URI is '${S3_URI:-}', not s3://BUCKET/PREFIX" ;;
esac
if [ "${SPOT_REHEARSAL:-}" = 1 ]; then target=$target/rehearsal; fi

uptime_seconds() {
    read -r uptime _ </proc/uptime
    echo "${uptime%%.*}"
}
give_up=$(($(uptime_seconds) + ${SPOT_SECONDS_LEFT:-60} - 4))

# Runs a command for no longer than we have. `timeout` also ends what the command started.
in_time() {
    left=$((give_up - $(uptime_seconds)))
    [ "$left" -gt 0 ] || fail "the time is over before: $*"
    status=0
    timeout --kill-after=1 "$left" "$@" || status=$?
    case $status in
    0) ;;
    124 | 137) fail "not done within $left s: $*" ;;
    *) fail "exit status $status: $*" ;;
    esac
}

newest=
IFS=
for mark in $CHECKPOINT_DONE; do
    [ -e "$mark" ] || continue
    if [ -z "$newest" ] || [ "$mark" -nt "$newest" ]; then newest=$mark; fi
done
[ -n "$newest" ] || fail "no complete checkpoint matches $CHECKPOINT_DONE"

directory=${newest%/*}
mark=${newest##*/}
target=$target/${directory##*/}
echo "copying $directory to $target"
in_time aws s3 cp --recursive --only-show-errors --exclude "$mark" "$directory" "$target"
in_time aws s3 cp --only-show-errors "$newest" "$target/$mark"
echo "uploaded: $target/$mark"
