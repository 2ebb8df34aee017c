#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A service between interfaces where nothing comes: all of its parts sleep. What it takes of a core is printed; what is
checked is that nobody polls, by bounds that are far off and hold on a machine that is busy with something else."""

import os
import time

import live
from live import expect, lab

SECONDS = 3
WAKES = 500  # a second, of all threads together; some 60 are usual
WANTS = 0.8  # of the time one thread runs or waits for a core; some 0.001 are usual, and whoever polls always does
SERVICE = """service: idle
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 3}}
ports:
  in: {{interface: left, driver: {driver}}}
  out: {{interface: right, driver: {driver}}}
limits: {{flows: 64k, memory: 64MiB}}
metrics: 127.0.0.1:9464
"""
POLICY = "limits: [{name: all, per: flow, rate: 1Mbit, burst: 4KiB}]\n"


def used():
    """Seconds on a core, those waiting for one, and how often it went to sleep, of each thread here but ours."""
    found = {}
    for pid, command in lab.others():
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as file:
                    ran, waited = (int(ns) / 1e9 for ns in file.read().split()[:2])
                with open(f"/proc/{pid}/task/{tid}/status", encoding="ascii") as file:
                    slept = next(int(line.split()[1]) for line in file if line.startswith("voluntary"))
                found[os.path.basename(command.split(" ")[0]), tid] = (ran, waited, slept)
        except FileNotFoundError:
            pass  # smctl status, on its way out
    return found


def idle(given, path, driver):
    service = lab.Service(given.build, path.middle)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", SERVICE.format(driver=driver))
    service.start("service.yaml")
    if not expect(service.wait_running(60), f"{driver}: the service runs", service.log()):
        return
    time.sleep(1)
    before, began = used(), time.monotonic()
    time.sleep(SECONDS)
    after, seconds = used(), time.monotonic() - began
    threads = {key: [(b - a) / seconds for a, b in zip(before[key], after[key])] for key in after if key in before}
    share, _, wakes = (sum(column) for column in zip(*threads.values()))
    for (name, _), (ran, waited, slept) in sorted(threads.items()):
        print(f"     {name}: {ran * 100:.3f} % of a core, {waited * 100:.2f} % waiting for one, {slept:.1f} wakes/s")
    expect(len(threads) >= 6, f"{driver}: switch, orchestrator, replicas and who started them", threads)
    expect(max(ran + waited for ran, waited, _ in threads.values()) < WANTS and wakes < WAKES, f"{driver}: idle takes {share * 100:.2f} % of a core, {wakes:.0f} wakes/s", threads)
    expect(service.stop() == 0, f"{driver}: it ends", service.log())
    live.expect_no_sanitizer(service.log())


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = lab.Path()
    for driver in ("xdp", "xdp, threads: 1", "pcap"):
        idle(given, path, driver)
    live.expect_alone()
    live.finish()


main()
