#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Processors that a service file names: the switch's packet threads and no others of it are bound to theirs, each replica
to one, evenly, whoever dies and comes."""

import collections
import os
import signal

import live
from live import expect, lab

SERVICE = """service: bound
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{generator: {{flows: 100, rate: 2kpps}}}}
  out: {{discard: true}}
limits: {{flows: 64k, memory: 64MiB}}
cpus: {{switch: [{first}], replicas: [{first}, {last}]}}
"""
POLICY = "limits: [{name: all, per: flow, rate: 1Mbit, burst: 4KiB}]\n"


def replicas(service):
    """How many replicas there are on each set of processors, and their processes."""
    pids = [replica["pid"] for replica in (service.status() or {"replicas": []})["replicas"] if replica["pid"]]
    found = collections.Counter()
    for pid in pids:
        try:
            found[tuple(sorted(os.sched_getaffinity(pid)))] += 1
        except ProcessLookupError:
            pass  # it was killed just now
    return found, pids


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    usable = sorted(os.sched_getaffinity(0))
    first, last = usable[0], usable[-1]
    if not expect(first != last, "there are two processors"):
        live.finish()
    service = lab.Service(given.build)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", SERVICE.format(first=first, last=last))
    service.start("service.yaml")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        live.finish()
    switch = next(pid for pid, command in lab.others() if os.path.basename(command.split()[0]) == "sm-switch")
    threads = [tuple(sorted(os.sched_getaffinity(int(tid)))) for tid in os.listdir(f"/proc/{switch}/task")]
    expect(threads.count((first,)) == 1 and threads.count(tuple(usable)) == len(threads) - 1, f"of the switch one thread is bound: {threads}")
    for wanted in (2, 4):
        done = service.smctl("scale", wanted, timeout=60)
        expect(done.returncode == 0, f"scale {wanted}", done)
        found, pids = replicas(service)
        expect(found == {(first,): wanted // 2, (last,): wanted // 2}, f"{wanted} replicas, evenly: {dict(found)}")
    killed = {pid for pid in pids if os.sched_getaffinity(pid) == {last}}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def replaced():
        found, now = replicas(service)
        return found == {(first,): 2, (last,): 2} and not killed & set(now)

    expect(lab.wait_until(replaced, 60), "those that died are replaced where they were", service.log())
    expect(service.stop() == 0, "it ends", service.log())
    live.expect_no_sanitizer(service.log())
    live.expect_alone()
    live.finish()


main()
