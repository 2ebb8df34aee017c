#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A long run with moves all the time, by relabelling and by copying, splits and merges, and flows that come and go: the
memory of its parts and the state in the arena stay as they were after a warm-up.

SM_FULL=1: five minutes; else a few seconds, in which only what leaks fast is seen.
"""

import itertools
import os
import time

import live
from live import expect, lab

FULL = os.environ.get("SM_FULL", "") not in ("", "0")
WARM, LONG = (30, 300) if FULL else (3, 6)
MIB = 1 << 20
MOST = 1 * MIB  # that the memory of a process may grow by
SERVICE = """service: flat
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 3, min: 1, max: 4}
ports:
  in: {generator: {flows: 2000, rate: 20kpps}}
  out: {discard: true}
limits: {flows: 64k, memory: 64MiB}
metrics: 127.0.0.1:9464
"""
POLICY = "limits: [{name: all, per: flow, rate: 1Mbit, burst: 4KiB}]\n"  # whose bucket is full again is forgotten


def memory():
    """Bytes of its own of each process here but ours."""
    found = {}
    for pid, command in lab.others():
        try:
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                kib = next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
            found[os.path.basename(command.split(" ")[0]), pid] = kib * 1024
        except (FileNotFoundError, StopIteration):
            pass
    return found


def disturb(service, seconds):
    """Operations one behind the other; how many there were."""
    end, count = time.monotonic() + seconds, 0
    for half, into, how in itertools.cycle(itertools.product(("0-8191", "8192-16383"), ("r1", "r2", "r3"), ([], ["--copy"]))):
        if time.monotonic() > end:
            return count
        done = service.smctl("move", f"shards:{half}", "--to", into, *how, timeout=60)
        fine = done.returncode == 0 or "abandoned" in done.stderr
        count += 1
        if fine and count % 20 == 0:
            for replicas in (4, 3):  # the newest one goes again
                done = service.smctl("scale", replicas, timeout=60)
                fine &= done.returncode == 0 or "abandoned" in done.stderr
        if not fine or service.process.poll() is not None:
            expect(False, f"operation {count}", done)
            return count


def used(service):
    """Bytes of state; flows come and go, so the least of a few looks."""
    return min((service.status() or {}).get("memory", {}).get("used", 0) for _ in range(5))


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    service = lab.Service(given.build)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", SERVICE)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        live.finish()
    disturb(service, WARM)
    before, state = memory(), used(service)
    count = disturb(service, LONG)
    after, state_after = memory(), used(service)
    status = service.status() or {}
    print(f"     {count} operations, {status['moves']['completed']} moves, {status['flows']['created']} flows began")
    for key in sorted(before.keys() & after.keys()):
        grown = after[key] - before[key]
        text = f"{key[0]}: {before[key] / MIB:.2f} MiB, {grown / 1024:+.0f} KiB"
        if given.slow:
            print(f"     {text}")  # a sanitizer keeps what was freed
        else:
            expect(grown <= MOST, text)
    expect(len(before.keys() & after.keys()) >= 6, "switch, orchestrator, replicas and who started them", before, after)
    expect(0 < state and state_after <= 1.1 * state + MIB, f"state: {state / MIB:.2f} MiB, then {state_after / MIB:.2f} MiB")
    expect(service.stop() == 0, "it ends", service.log())
    live.expect_no_sanitizer(service.log())
    live.expect_alone()
    live.finish()


main()
