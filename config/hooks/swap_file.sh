#!/bin/sh
# Leaves a load balancer that has no API for it, by its configuration file: Traefik's file provider, NGINX's upstream file.
#
#   swap_file.sh leave     puts OUT_FILE in the place of LIVE_FILE, and keeps what stood there
#   swap_file.sh return    puts that back
#
#   LIVE_FILE   the file that the load balancer reads; must be set
#   OUT_FILE    the same without this machine, made ready beforehand; must be set
#   TEST        a command that fails where the load balancer would not take its configuration; none (default)
#   RELOAD      a command that makes it read the configuration again; none (default), where it watches its files
#
# Each change is one rename, so that no reader ever sees half a file; a file that fails TEST is taken back before anybody
# reads it. Told twice, it does no more than told once.
set -eu

live=${LIVE_FILE:-}
out=${OUT_FILE:-}
test=${TEST:-}
reload=${RELOAD:-}
kept=$live.before-spot

fail() {
    echo "$*" >&2
    exit 1
}

[ -n "$live" ] && [ -n "$out" ] || fail "LIVE_FILE and OUT_FILE must be set"

# An empty file beside $1 whose name nobody could foresee, so that no link waits in its place.
fresh=
fresh_beside() { mktemp "$1.spot-XXXXXX"; }
trap 'rm -f "$fresh"' EXIT

# Copies $1 over $2, owner and mode as $2 has them, by a rename.
put() {
    fresh=$(fresh_beside "$2")
    cp -p "$2" "$fresh"
    cat "$1" >"$fresh"
    mv "$fresh" "$2"
}

try() {
    # Words, not one name: "nginx -t".
    # shellcheck disable=SC2086
    [ -z "$test" ] || $test
}

read_again() {
    # shellcheck disable=SC2086
    [ -z "$reload" ] || $reload || fail "could not reload: $reload (the file is changed, and not read)"
}

case ${1:-} in
leave)
    [ -f "$live" ] || fail "still in the load balancer: there is no $live"
    [ -s "$out" ] || fail "still in the load balancer: $out is missing or empty"
    if [ "${SPOT_REHEARSAL:-}" = 1 ]; then
        echo "would put $out in the place of $live"
        exit 0
    fi
    # What is kept from a first time is what has to come back, not what the first time made of it.
    if [ ! -f "$kept" ]; then
        fresh=$(fresh_beside "$kept")
        cp -p "$live" "$fresh"
        mv "$fresh" "$kept"
    fi
    put "$out" "$live"
    if ! try; then
        mv "$kept" "$live"
        fail "still in the load balancer: $out is not taken ($test)"
    fi
    read_again
    echo "$live is now $out"
    ;;
return)
    if [ ! -f "$kept" ]; then
        echo "nothing to put back: $live was not changed"
        exit 0
    fi
    put "$kept" "$live"
    try || fail "not back in the load balancer: what stood in $live before is not taken any more ($test)"
    read_again
    rm -f "$kept"
    echo "$live is as it was"
    ;;
*)
    fail "usage: swap_file.sh leave|return"
    ;;
esac
