#!/bin/sh
# A notice while the UPS is on battery, by upsc of Network UPS Tools (NUT): for a source of kind "command".
#
#   ups_state.sh UPS[@HOST]
#
# It prints as "window" how long the battery will last by the UPS's own reckoning, where the UPS has one.

set -u
ups=${1:?which UPS? as in: ups_state.sh ups@localhost}

status=$(upsc "$ups" ups.status) || exit 1
# Words of NUT: OL is on line, OB on battery, LB low battery, FSD a forced shutdown that upsmon has begun.
case " $status " in
    *" OB "* | *" FSD "*) ;;
    *" OL "*) exit 110 ;;
    *)
        echo "upsc says '$status', which is neither on line nor on battery" >&2
        exit 1
        ;;
esac

# Seconds, at times with a fraction.
runtime=$(upsc "$ups" battery.runtime 2>/dev/null) || runtime=
runtime=${runtime%%.*}
case $runtime in
    '' | *[!0-9]*) echo '{"reason": "on battery"}' ;;
    *) echo "{\"reason\": \"on battery\", \"window\": \"${runtime}s\"}" ;;
esac
