#!/usr/bin/env python3
"""A training loop that saves itself when the notice file appears. Copy the parts marked 1 to 5 into yours.

    flag_file.py CHECKPOINT_DIRECTORY PID_FILE

The loop needs no library and no connection to the watchdog: one look at the notice file at each step boundary is all.
The file says since when the work is to be saved. That stays when the file is rewritten, and changes when a stronger
notice comes: then the loop saves once more. After a warning it trains on, and so it does when the notice was withdrawn.
Next to it, `save_checkpoint.sh` with TRAINER_SIGNAL=none waits for the proof, so
that the watchdog knows how it went. In a rehearsal that hook sends SIGUSR1: save, and go on.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

NOTICE = os.environ.get("SPOT_NOTICE_FILE", "/run/spot-watchdog/notice.json")


def sync(path: Path) -> None:
    """Makes a file or a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(directory: Path, step: int, state: dict) -> None:
    """1. Saves so that a checkpoint is either whole or not there: write aside, sync, rename, and mark last."""
    final = directory / f"step-{step}"
    aside = directory / f".step-{step}.tmp"
    if (final / "DONE").exists():
        # This very step is saved already: marked anew, so that whoever asked now sees that it is.
        (final / "DONE").touch()
        return
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / "state.json").write_text(json.dumps(state))
    sync(aside / "state.json")
    sync(aside)
    aside.rename(final)
    sync(directory)
    (final / "DONE").touch()
    sync(final)
    print(f"saved {final}", flush=True)


def resume(directory: Path) -> dict:
    """2. Starts from the newest checkpoint that is complete, never from one that is merely there."""
    steps = [int(mark.parent.name.removeprefix("step-")) for mark in directory.glob("step-*/DONE")]
    if not steps:
        return {"step": 0}
    return json.loads((directory / f"step-{max(steps)}" / "state.json").read_text())


def asked():
    """3. What the notice asks for; None where there is none. An empty or strange file asks as well: better saved."""
    try:
        with open(NOTICE) as file:
            text, changed = file.read(65536), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    except OSError:
        text, changed = "", 0
    try:
        notice = json.loads(text)
        since, kind = notice.get("since", changed), notice.get("notice-kind")
    except (ValueError, AttributeError):
        since, kind = changed, None
    return {"since": since, "is_warning": kind in ("rebalance", "maintenance")}


def main() -> None:
    directory, pid_file = Path(sys.argv[1]), Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)

    # 4. A rehearsal asks by signal. The signal only raises a flag: a save inside it could meet half a step.
    signalled = []
    signal.signal(signal.SIGUSR1, lambda *_: signalled.append(True))
    pid_file.write_text(f"{os.getpid()}\n")

    state = resume(directory)
    saved_for = None
    while True:
        time.sleep(0.05)  # Your forward, backward and optimizer step. Warm-up and evaluation have boundaries too.
        state["step"] += 1

        # 5. At each step boundary. With several ranks let rank 0 look and broadcast, so that all save the same step.
        if signalled:
            signalled.clear()
            save(directory, state["step"], state)
        while notice := asked():
            if notice["since"] != saved_for:
                save(directory, state["step"], state)
                saved_for = notice["since"]
            if notice["is_warning"]:
                break  # The machine may stay for hours.
            time.sleep(0.2)  # The machine goes. Withdrawn: train on.


if __name__ == "__main__":
    main()
