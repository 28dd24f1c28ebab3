#!/usr/bin/env bash
# Runs as root inside the guest: the unit as docs/configuration.md installs it, on a real systemd.
set -uo pipefail
export SYSTEMD_PAGER= SYSTEMD_COLORS=0
here=/payload
state=/var/lib/spot-watchdog
failures=0

say() { printf '=== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*"
    failures=$((failures + 1))
    journalctl -u spot-watchdog -n 40 --no-pager -o cat | sed 's/^/    /'
}
check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then printf 'ok: %s\n' "$what"; else fail "$what"; fi
}
within() { # SECONDS COMMAND...
    local until=$((SECONDS + $1))
    shift
    while ! "$@" 2>/dev/null; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.2
    done
}
# What the hook wrote since the test was last calm.
has() { grep -q "$1" /srv/job/log; }
count() { [ "$(grep -c "$1" /srv/job/log)" = "$2" ]; }
active() { systemctl is-active --quiet spot-watchdog; }
pid() { systemctl show -P MainPID spot-watchdog; }
other_pid() { [ "$(pid)" != "$1" ] && [ "$(pid)" != 0 ]; }
stopped() { [ "$(systemctl is-active spot-watchdog)" = inactive ]; }
status_is() { [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:9189/$1")" = "$2" ]; }
calm() { # Ends the episode and empties the hook's log.
    watchdog notice interruption --withdraw >/dev/null 2>&1
    within 60 status_is readyz 200 || fail "it did not calm down"
    : >/srv/job/log
}

install_it() {
    useradd --create-home --shell /bin/sh worker
    install -d -o worker /srv/job
    cat >/srv/job/hook.sh <<'HOOK'
#!/bin/sh
echo "began $SPOT_STEP $SPOT_ATTEMPT as $(id -un) in $HOME" >>/srv/job/log
echo "held in $(cat /proc/self/cgroup) with $(ulimit -S -n) files" >>/srv/job/log
[ ! -e /srv/job/hides ] || env -i setsid sleep 4711 &
sleep "$(cat /srv/job/takes)"
ip -o addr show dev lo | grep -q 10.9.8.7 && echo "the network was up when $SPOT_STEP ended" >>/srv/job/log
touch /srv/job/DONE
echo "ended $SPOT_STEP $SPOT_ATTEMPT" >>/srv/job/log
HOOK
    chmod 0755 /srv/job/hook.sh
    : >/srv/job/log
    : >/srv/job/DONE
    chown worker /srv/job/log /srv/job/DONE
    echo 2 >/srv/job/takes
    # What docs/configuration.md says.
    install -m 0755 $here/watchdog /usr/local/bin/
    install -d /etc/spot-watchdog
    install -m 0644 $here/spot-watchdog.service /etc/systemd/system/
    cat >/etc/spot-watchdog/watchdog.toml <<'TOML'
[[step]]
name = "save"
kind = "hook"
command = ["/srv/job/hook.sh"]
user = "worker"
proof = { newer = "/srv/job/DONE" }

[[step]]
name = "goodbye"
kind = "hook"
command = ["/srv/job/hook.sh"]
on = ["shutdown"]
TOML
    # What stands for the network: an address that comes and goes with it.
    cat >/etc/systemd/system/network-here.service <<'UNIT'
[Unit]
Before=network.target network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip addr add 10.9.8.7/32 dev lo
ExecStop=/usr/sbin/ip addr del 10.9.8.7/32 dev lo
[Install]
WantedBy=network-online.target multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet --now network-here
    serve_metadata
    systemctl enable --now spot-watchdog
}

# The metadata service at its own address, by our own emulator.
serve_metadata() {
    ip addr add 169.254.169.254/32 dev lo
    systemd-run --quiet --unit=metadata /usr/local/bin/watchdog emulate aws --listen 169.254.169.254:80
}

after_the_reboot() {
    say "the plan was finished while the host went down, and the next boot closes its episode"
    check "the hook had its time" has "ended save 1"
    check "with the network still up" has "the network was up when save ended"
    check "the shutdown step ran too" has "ended goodbye 1"
    check "active" within 30 active
    # No cloud says yet which machine this is, so its state rests for half a minute before the machine-id decides.
    check "the old episode is closed" within 60 sh -c \
        'journalctl -u spot-watchdog -o cat | grep -q "episode closed: the machine booted again"'
    serve_metadata
    check "ready" within 30 status_is readyz 200
    check "nothing was run again" count "began save" 1
    check "no notice file stands" test ! -e /run/spot-watchdog/notice.json
}

if [ -e /root/rebooted ]; then
    failures=$(cat /root/rebooted)
    after_the_reboot
    say "$failures failures"
    exit "$((failures > 0))"
fi

say "the unit starts, is ready, and says what it sees"
install_it
check "active" within 20 active
check "its status line tells what it watches" within 20 sh -c 'systemctl show -P StatusText spot-watchdog | grep -q .'
check "the first line names the machine" within 20 sh -c 'journalctl -u spot-watchdog -o cat | grep -q "watching i-0123456789abcdef0 (g5.xlarge, spot)"'
check "ready" within 10 status_is readyz 200
systemctl status spot-watchdog --no-pager | head -n 12

say "a notice runs the hook as another user"
watchdog notice interruption --window 60s --reason test
check "it ran to its end" within 20 has "ended save 1"
check "as that user, at home" has "as worker in /home/worker"
check "in a cgroup of its own" has "held in 0::/system.slice/spot-watchdog.service/save\.[0-9.]* "
check "with the limit of files that systemd gave us" has "with $(systemctl show -P LimitNOFILESoft spot-watchdog) files"
check "/readyz is red" status_is readyz 503
check "the notice file is there for everyone" test "$(stat -c %a /run/spot-watchdog/notice.json)" = 644
calm
check "the notice file is gone" test ! -e /run/spot-watchdog/notice.json

say "kill -9 in mid-hook: started again, the hook goes on, nothing is run twice"
echo 8 >/srv/job/takes
watchdog notice interruption --window 60s
within 10 has "began save 1"
before=$(pid)
kill -9 "$before"
check "started again" within 15 other_pid "$before"
check "the hook outlived it" within 20 has "ended save 1"
check "its proof is believed" within 20 sh -c 'journalctl -u spot-watchdog -o cat | grep -q "save done: .*proof holds"'
check "and it ran once" count "began save" 1
calm

say "the kernel, out of memory, kills the daemon: the same"
echo 8 >/srv/job/takes
watchdog notice interruption --window 60s
within 10 has "began save 1"
before=$(pid)
# Whom it kills is left to us; that it is killed by the kernel is not.
echo 1000 >"/proc/$before/oom_score_adj"
echo f >/proc/sysrq-trigger
check "started again" within 15 other_pid "$before"
check "after an OOM kill" within 10 sh -c "journalctl -k -o cat | grep -qi 'killed process $before (watchdog)'"
check "the hook outlived it" within 20 has "ended save 1"
check "and ran once" count "began save" 1
calm

say "what hides from a hook's group and cleans its environment ends with it, over a crash too"
hidden() { pgrep -f 'sleep 4711' >/dev/null; }
gone() { ! hidden; }
echo 30 >/srv/job/takes
touch /srv/job/hides
watchdog notice interruption --window 20s
within 10 hidden
before=$(pid)
kill -9 "$before"
check "started again" within 15 other_pid "$before"
check "what hides survived that" hidden
check "and ends at its stop-by" within 40 gone
rm /srv/job/hides
calm
check "no cgroup of a run is left" within 20 sh -c \
    '[ "$(find /sys/fs/cgroup/system.slice/spot-watchdog.service -mindepth 1 -type d | wc -l)" -le 2 ]'

say "a loop that hangs is caught by the keep-alive"
before=$(pid)
kill -STOP "$before"
check "started again" within 45 other_pid "$before"

say "a mere restart fires no shutdown step"
within 20 status_is livez 200
systemctl restart spot-watchdog
within 20 status_is livez 200
check "nothing ran" count "goodbye" 0

say "systemctl stop in the middle of an episode lets the plan finish"
echo 6 >/srv/job/takes
watchdog notice interruption --window 60s
within 10 has "began save 1"
systemctl stop spot-watchdog
check "stopped" stopped
check "after the hook had ended" has "ended save 1"
check "with exit status 0" test "$(systemctl show -P ExecMainStatus spot-watchdog)" = 0
check "and no shutdown step" count "goodbye" 0
systemctl start spot-watchdog
within 20 status_is livez 200
sleep 2
check "after a start it is not run again" count "began save" 1
calm

say "a server is stopped only when drained, and its Restart=always is held back while the notice stands"
cp /etc/spot-watchdog/watchdog.toml /root/hooks.toml
cat >/etc/systemd/system/server.service <<'UNIT'
[Unit]
# As config/examples/vllm.toml says.
ConditionPathExists=!/run/spot-watchdog/drained
[Service]
ExecStart=/bin/bash -c 'trap "exit 0" TERM; while :; do sleep 0.1; done'
Restart=always
RestartSec=100ms
UNIT
cat >/etc/spot-watchdog/watchdog.toml <<'TOML'
[[step]]
name = "drain"
kind = "drain"
connections = [8000]
drained = "/run/spot-watchdog/drained"

[[step]]
name = "stop-server"
kind = "signal"
process = { unit = "server.service" }
requires-file = "/run/spot-watchdog/drained"
after = ["drain"]
TOML
server_is() { [ "$(systemctl is-active server)" = "$1" ]; }
systemctl daemon-reload
systemctl start server
systemctl restart spot-watchdog
within 20 status_is livez 200
check "check finds its process, and says that it comes again" \
    sh -c 'watchdog check | tr -s "\n " " " | grep -q "SIGTERM would go to bash .* which catches it.*begins server.service again"'
first=$(systemctl show -P MainPID server)
watchdog notice interruption --window 60s
check "it was signalled, and ended" within 30 sh -c 'journalctl -u spot-watchdog -o cat | grep -q "stop-server done: bash .* after SIGTERM"'
check "its unit is down" within 10 server_is inactive
sleep 2
check "and stays down" server_is inactive
calm
check "once the notice is gone, so is the file" within 20 test ! -e /run/spot-watchdog/drained
systemctl start server
check "and it can be begun again" within 10 server_is active
kill -KILL "$(systemctl show -P MainPID server)"
check "as it is when it ends by itself" within 10 sh -c '[ "$(systemctl show -P NRestarts server)" -ge 1 ]'
check "in a process that is another" test "$(systemctl show -P MainPID server)" != "$first"
systemctl stop server
cp /root/hooks.toml /etc/spot-watchdog/watchdog.toml
systemctl restart spot-watchdog
within 20 status_is livez 200

say "a wrong configuration is not started again and again"
cp /etc/spot-watchdog/watchdog.toml /root/good.toml
echo 'nonsense = 1' >>/etc/spot-watchdog/watchdog.toml
sed -i '1i nonsense = 1' /etc/spot-watchdog/watchdog.toml
systemctl restart spot-watchdog 2>/dev/null
sleep 4
check "it failed with 78" test "$(systemctl show -P ExecMainStatus spot-watchdog)" = 78
check "once" test "$(systemctl show -P NRestarts spot-watchdog)" -le 3
check "and stays down" test "$(systemctl is-active spot-watchdog)" = failed
cp /root/good.toml /etc/spot-watchdog/watchdog.toml
systemctl reset-failed spot-watchdog

say "the strict drop-in works for the shipped save hook"
install -d /etc/systemd/system/spot-watchdog.service.d
install -m 0644 $here/strict.conf /etc/systemd/system/spot-watchdog.service.d/
install -D -m 0644 $here/spot-watchdog.sysusers /etc/sysusers.d/spot-watchdog.conf
systemd-sysusers
install -D -m 0755 -t /usr/local/share/spot-watchdog/hooks $here/save_checkpoint.sh
cat >/usr/local/bin/trainer <<'TRAINER'
#!/bin/bash
# Saves when it is told to, with a completion mark.
mkdir -p /var/lib/spot-watchdog/ckpt
trap 'mkdir -p /var/lib/spot-watchdog/ckpt/step-1; touch /var/lib/spot-watchdog/ckpt/step-1/DONE; exit 0' TERM
echo $$ >/var/lib/spot-watchdog/trainer.pid
while :; do sleep 0.2; done
TRAINER
chmod 0755 /usr/local/bin/trainer
systemctl stop spot-watchdog
cat >/etc/spot-watchdog/watchdog.toml <<'TOML'
[[step]]
name = "save"
kind = "hook"
command = ["/usr/local/share/spot-watchdog/hooks/save_checkpoint.sh"]
environment = { TRAINER_PID_FILE = "/var/lib/spot-watchdog/trainer.pid", CHECKPOINT_DONE = "/var/lib/spot-watchdog/ckpt/*/DONE" }
TOML
rm -rf $state
systemctl daemon-reload
systemctl start spot-watchdog
check "active under strict.conf" within 20 status_is livez 200
# The trainer is of the same user, since nobody else may be signalled.
systemd-run --quiet --unit=trainer --uid=spot-watchdog /usr/local/bin/trainer
within 10 test -s $state/trainer.pid
runuser -u spot-watchdog -- watchdog notice interruption --window 60s --state-dir $state
check "the checkpoint was saved" within 30 test -e $state/ckpt/step-1/DONE
check "and believed" within 20 sh -c 'curl -s http://127.0.0.1:9189/status | grep -q "\"progress\":\"done\""'
systemd-analyze security spot-watchdog.service --no-pager | tail -n 1

say "a host that goes down in the middle of an episode"
systemctl stop trainer
rm -r /etc/systemd/system/spot-watchdog.service.d
systemctl daemon-reload
systemctl stop spot-watchdog
rm -rf $state
cp /root/good.toml /etc/spot-watchdog/watchdog.toml
systemctl start spot-watchdog
within 20 status_is readyz 200
: >/srv/job/log
echo 6 >/srv/job/takes
watchdog notice interruption --window 60s
within 10 has "began save 1"
echo "$failures" >/root/rebooted
sync
systemctl reboot
# The reboot ends this.
sleep 300
exit 1
