#!/bin/sh
# Asks a training process for a checkpoint, and waits until that checkpoint is proved to be there.
#
#   TRAINER_PID_FILE     a file with the process id of the trainer (for torchrun: of the agent, not of a rank)
#   CHECKPOINT_DONE      glob of the marks that complete a checkpoint: /mnt/fsx/ckpt/*/DONE
#   TRAINER_SIGNAL       what makes it save and stop: TERM (default), USR1, ..., or `none` where it watches the
#                        notice file by itself and only the proof is waited for
#   TRAINER_SAVE_SIGNAL  what makes it save and go on, for rehearsals: USR1 (default)
#
# Exit status 0 says one thing only: a checkpoint was completed after we asked for it. In a rehearsal without
# TRAINER_PID_FILE it starts a small trainer of its own, so that the whole way can be seen on any machine.
set -eu

fail() {
    echo "no checkpoint: $*" >&2
    exit 1
}

# Whole seconds since boot: no step of the wall clock moves them.
uptime_seconds() {
    read -r uptime _ </proc/uptime
    echo "${uptime%%.*}"
}

# Give up a little before we would be stopped, to be able to say why.
began=$(uptime_seconds)
give_up=$((began + ${SPOT_SECONDS_LEFT:-60} - 4))
[ "$give_up" -gt "$began" ] || give_up=$((began + 1))

stub=
work=$(mktemp -d)
clean_up() {
    # The stub ends by itself, so that it leaves no child behind.
    : >"$work/stop"
    if [ -n "$stub" ]; then wait "$stub" || true; fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'if [ -n "$stub" ]; then kill "$stub"; fi; exit 143' HUP INT TERM

# A trainer of two shards: saves on USR1 and trains on.
stub_trainer() {
    mark=$work/ckpt/step-100/DONE
    trap 'asked=yes' USR1
    asked=
    : >"$work/ready"
    while [ ! -e "$work/stop" ]; do
        if [ -n "$asked" ]; then
            asked=
            mkdir -p "${mark%/*}"
            for shard in 1 2; do
                echo "stub trainer: writing shard $shard of 2"
                sleep 1.2
                echo weights >"${mark%/*}/shard-$shard"
            done
            # The mark comes last, and in one piece: a reader never sees half a checkpoint as a whole one.
            : >"$mark.tmp"
            mv "$mark.tmp" "$mark"
        fi
        sleep 0.1
    done
}

signal=${TRAINER_SIGNAL:-TERM}
if [ "${SPOT_REHEARSAL:-}" = 1 ]; then
    signal=${TRAINER_SAVE_SIGNAL:-USR1}
    if [ -z "${TRAINER_PID_FILE:-}" ]; then
        echo "no TRAINER_PID_FILE is set: rehearsing with a stub trainer"
        CHECKPOINT_DONE="$work/ckpt/*/DONE"
        TRAINER_PID_FILE=$work/pid
        stub_trainer &
        stub=$!
        while [ ! -e "$work/ready" ]; do sleep 0.05; done
        echo "$stub" >"$TRAINER_PID_FILE"
    fi
fi
[ -n "${TRAINER_PID_FILE:-}" ] || fail "TRAINER_PID_FILE is not set; it names the file with the trainer's process id"
[ -n "${CHECKPOINT_DONE:-}" ] || fail "CHECKPOINT_DONE is not set; it is the glob of the marks that complete a checkpoint"

# --- Is there a trainer, and is it the one that wrote the file? ---

[ -r "$TRAINER_PID_FILE" ] || fail "$TRAINER_PID_FILE cannot be read; is the trainer running?"
read -r pid <"$TRAINER_PID_FILE" || true
case ${pid:-empty} in
*[!0-9]* | 0 | 1) fail "$TRAINER_PID_FILE holds '${pid:-}', which is no trainer's process id" ;;
esac

# One that has ended and was not yet collected by its parent is gone as well.
alive() { grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status"; }
alive || fail "process $pid of $TRAINER_PID_FILE is gone"

# Whoever owns the file, its link or its directory decides who is signalled: only root, we and the trainer's own user may.
owner=$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$pid/status")
directory=$(dirname "$TRAINER_PID_FILE")
for author in $(stat -c %u "$TRAINER_PID_FILE") $(stat -L -c %u "$TRAINER_PID_FILE" "$directory"); do
    case " 0 $(id -u) $owner " in
    *" $author "*) ;;
    *) fail "$TRAINER_PID_FILE, its link or its directory belongs to user $author, and process $pid to user $owner" ;;
    esac
done

# A process that began after the file was written got the number second-hand. A minute of slack forgives a clock that
# was set in between.
stat_line=$(cat "/proc/$pid/stat") || fail "process $pid of $TRAINER_PID_FILE is gone"
# shellcheck disable=SC2086  # split on purpose: the start time is field 22, the 20th after the name in brackets
set -- ${stat_line##*) }
ticks=${20}
boot=$(sed -n 's/^btime //p' /proc/stat)
written=$(stat -c %Y "$TRAINER_PID_FILE")
[ $((boot + ticks / $(getconf CLK_TCK))) -le $((written + 60)) ] ||
    fail "$TRAINER_PID_FILE is stale: process $pid began after it was written"

# --- Ask. ---

# The default action of these signals ends a process. One that has not asked to catch it would die without saving.
catches() {
    case $1 in
    HUP) number=1 ;; INT) number=2 ;; QUIT) number=3 ;; USR1) number=10 ;; USR2) number=12 ;; TERM) number=15 ;;
    *) fail "signal '$1' is not one of HUP INT QUIT USR1 USR2 TERM" ;;
    esac
    mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$pid/status")
    # The low 32 bits: 64 do not fit into the signed numbers of a shell.
    low=${mask#????????}
    [ $(((0x$low >> (number - 1)) & 1)) -eq 1 ]
}

# One line for each completed checkpoint. A set, not a time: the clocks of network file systems are not ours.
marks() {
    (
        IFS=
        for mark in $CHECKPOINT_DONE; do
            # It may be rotated away while we look.
            if [ -e "$mark" ]; then stat -c '%i|%y|%n' "$mark" || true; fi
        done
    )
}

if [ "$signal" = none ]; then
    # The trainer may have been quicker than we, so what is newer than the notice counts too. The file's time is since
    # when the work is to be saved, however often it is rewritten. A time ahead of our clock tells nothing.
    [ -e "${SPOT_NOTICE_FILE:-}" ] || fail "TRAINER_SIGNAL is none, but there is no notice file for the trainer to see"
    marks >"$work/before"
    fresh() {
        (
            IFS=
            : >"$work/now"
            for mark in $CHECKPOINT_DONE; do
                if [ "$mark" -nt "$SPOT_NOTICE_FILE" ] && ! [ "$mark" -nt "$work/now" ]; then echo "$mark"; fi
            done
        )
        marks | grep -vxFf "$work/before" || true
    }
    echo "waiting for the checkpoint that process $pid saves by itself"
else
    catches "$signal" || fail "process $pid does not catch SIG$signal, which would end it unsaved"
    marks >"$work/before"
    fresh() { marks | grep -vxFf "$work/before" || true; }
    kill -s "$signal" "$pid" || fail "SIG$signal could not be sent to process $pid; whose is it?"
    echo "sent SIG$signal to process $pid"
fi

# --- Wait for the proof. ---

gone=
while :; do
    new=$(fresh)
    [ -z "$new" ] || break
    now=$(uptime_seconds)
    [ "$now" -lt "$give_up" ] || fail "nothing new matches $CHECKPOINT_DONE after $((now - began)) s; process $pid still has not saved"
    if ! alive; then
        # What it wrote may take a moment to show on a network file system.
        gone=${gone:-$now}
        [ $((now - gone)) -lt 3 ] || fail "process $pid ended, and nothing new matches $CHECKPOINT_DONE"
    fi
    sleep 0.1
done
if [ "${SPOT_REHEARSAL:-}" = 1 ]; then
    # One that ends after saving takes a moment for it.
    sleep 0.5
    alive || fail "process $pid saved, but SIG$signal also ended it: a rehearsal must not"
fi
echo "checkpoint complete: ${new##*|}"
