#!/bin/sh
# How many seconds has this machine left? Needs curl, grep and sed.
#
#   seconds_left.sh          prints the number, negative once the time is past
#   seconds_left.sh --wait   waits until there is one, however long that takes, and prints it
#
# Exit status: 0 with a number; 1 while all is calm, also after a withdrawal; 2 where no watchdog answers. So:
#
#   if left=$(seconds_left.sh); then echo "$left seconds are left"; fi
set -u

# A hook is told where; anyone else knows it from `listen` in the configuration.
url=${SPOT_STATUS_URL:-http://127.0.0.1:9189/status}

ask() { # LIMIT [QUERY]
    # This machine is asked, whatever proxy the environment names.
    curl --silent --fail --globoff --noproxy '*' --max-time "$1" "$url${2-}"
}

# The answer is one line of JSON. In its texts each quote is written \", so that none of these patterns is found in one.
left() { # STATUS
    case $1 in *'"readiness":"draining"'*) ;; *) return 1 ;; esac
    printf '%s\n' "$1" |
        sed -n 's/.*"episode":{[^{}]*"deadline":{[^{}]*"seconds-left":\(-\{0,1\}[0-9.]*\).*/\1/p' |
        grep .
}

revision() { # STATUS
    printf '%s\n' "$1" | sed -n 's/.*"revision":\([0-9]*\),.*/\1/p'
}

if [ "${1-}" != --wait ]; then
    status=$(ask 2) || exit 2
    left "$status"
    exit
fi
query=
until status=$(ask 35 "$query") && left "$status"; do
    # The answer comes with the next change, or after half a minute. A restarted watchdog counts from the beginning.
    seen=$(revision "${status-}")
    query=${seen:+"?after=$seen&wait=30s"}
    [ -n "$seen" ] || sleep 1
done
