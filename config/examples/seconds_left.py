#!/usr/bin/env python3
"""How many seconds has this machine left? For training loops; needs nothing but Python's standard library.

    from seconds_left import seconds_left

    for step in range(steps):
        train(step)
        left = seconds_left()
        if left is not None and left < 45:
            save()
            break

A question takes about a millisecond, and a watchdog that hangs costs half a second at most. Where the steps are
shorter than that, ask at every hundredth one. Run as a program it prints the number, or nothing; with --follow it
prints a line for each change.
"""

import http.client
import json
import os
import sys
import time
import urllib.request

# A hook is told where; anyone else knows it from `listen` in the configuration.
STATUS = os.environ.get("SPOT_STATUS_URL") or "http://127.0.0.1:9189/status"
EVENTS = STATUS.removesuffix("/status") + "/events"

# This machine is asked, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# No watchdog, no answer in time, half an answer, or another program at this port.
TROUBLE = (OSError, ValueError, http.client.HTTPException)

LARGEST = 4 << 20


def left_in(status):
    """What is left according to a status; None where nothing takes the machine, as after a withdrawal."""
    if not isinstance(status, dict) or status.get("readiness") != "draining":
        return None
    deadline = (status.get("episode") or {}).get("deadline") or {}
    return deadline.get("seconds-left")


def seconds_left(url=STATUS, timeout=0.5):
    """Seconds until this machine is taken, negative once that time is past; None while all is calm, and where no
    watchdog answers."""
    try:
        with OPENER.open(url, timeout=timeout) as answer:
            return left_in(json.loads(answer.read(LARGEST)))
    except TROUBLE:
        return None


def changes(url=EVENTS, patience=40):
    """Each status as something changes, for ever; None when no watchdog answers any more. It gives a sign of life
    every 15 seconds, so that a connection that died is noticed."""
    while True:
        try:
            with OPENER.open(url, timeout=patience) as stream:
                while line := stream.readline(LARGEST):
                    if line.startswith(b"data:"):
                        yield json.loads(line[len(b"data:") :])
        except TROUBLE:
            pass
        yield None
        time.sleep(1)


def main():
    if "--follow" not in sys.argv[1:]:
        left = seconds_left()
        if left is not None:
            print(left)
        return
    said = None
    for status in changes():
        if status is None:
            line = "no watchdog answers"
        else:
            left = left_in(status)
            steps = [f"{step['name']} {step.get('progress', 'idle')}" for step in (status.get("episode") or status)["steps"]]
            line = "; ".join(["calm" if left is None else f"{left:.0f} s left", *steps])
        if line != said:
            print(line, flush=True)
        said = line


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
