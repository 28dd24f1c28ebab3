#!/usr/bin/env bash
# Runs as root inside the guest: the host asks it to power off, by ACPI, in the second in which the metadata says that the
# machine is preempted. What that came to is looked at after the next boot.
set -uo pipefail
export SYSTEMD_PAGER= SYSTEMD_COLORS=0
here=/payload
failures=0

say() { printf '=== %s\n' "$*"; }
check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then
        printf 'ok: %s\n' "$what"
    else
        printf 'FAILED: %s\n' "$what"
        failures=$((failures + 1))
    fi
}
within() { # SECONDS COMMAND...
    local until=$((SECONDS + $1))
    shift
    while ! "$@" 2>/dev/null; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.2
    done
}
count() { [ "$(grep -c "$1" /srv/job/log)" = "$2" ]; }
serve_metadata() { # FLAG...
    ip addr add 169.254.169.254/32 dev lo
    systemd-run --quiet --unit=metadata -p DefaultDependencies=no \
        /usr/local/bin/watchdog emulate gcp --listen 169.254.169.254:80 "$@"
}

if [ -e /root/powered-off ]; then
    say "after the next boot"
    cat /srv/job/log
    journalctl -b -1 -u spot-watchdog --no-pager -o short-precise | tail -n 40
    check "the hook ran once" count "began save" 1
    check "and had its time" count "ended save" 1
    check "the power button was pressed" sh -c \
        'journalctl -b -1 -o cat | grep -qi "power key pressed\|powering off"'
    serve_metadata
    check "the daemon is there again" within 60 sh -c 'curl -s -o /dev/null http://127.0.0.1:9189/livez'
    sleep 5
    check "and runs nothing again" count "began save" 1
    exit "$((failures > 0))"
fi

install -d /srv/job /etc/spot-watchdog
: >/srv/job/log
install -m 0755 $here/watchdog /usr/local/bin/
install -m 0644 $here/spot-watchdog.service /etc/systemd/system/
cat >/srv/job/hook.sh <<'HOOK'
#!/bin/sh
echo "began $SPOT_STEP $SPOT_ATTEMPT" >>/srv/job/log
sleep 4
echo "ended $SPOT_STEP $SPOT_ATTEMPT" >>/srv/job/log
sync
HOOK
chmod 0755 /srv/job/hook.sh
cat >/etc/spot-watchdog/watchdog.toml <<'TOML'
[[source]]
kind = "gcp"

[[source]]
kind = "shutdown"

[[step]]
name = "save"
kind = "hook"
command = ["/srv/job/hook.sh"]
TOML
# What is logged outlives the boot.
install -d /var/log/journal
journalctl --flush
systemctl daemon-reload
systemctl enable --quiet spot-watchdog
touch /root/powered-off
sync
serve_metadata --notice-after 30s
systemctl start spot-watchdog
within 20 sh -c 'journalctl -u spot-watchdog -o cat | grep -q "through gcp by long poll"' || say "it does not watch"
# Held until the flag is set; the host is told in the same moment.
preempted=http://169.254.169.254/computeMetadata/v1/instance/preempted
ask() { curl -si -H 'Metadata-Flavor: Google' "$preempted$1"; }
mark=$(ask "" | tr -d '\r' | sed -n 's/^etag: //Ip')
ask "?wait_for_change=true&last_etag=$mark" | grep -q TRUE || say "the flag is not set"
echo "PRESS-THE-POWER-BUTTON"
# The power-off ends this.
sleep 300
exit 1
