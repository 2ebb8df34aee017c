#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The strategy drain between two interfaces: flows stay with their replica until they end, new ones go to the new owner,
and an operation that is to end a replica waits for its flows and says how many are left."""

import collections
import json
import os

import live
from live import expect, lab

SERVICE = """service: strategy
middlebox: {{exec: {watcher}, args: [seen], strategy: drain, idle: 5s}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{interface: left}}
  out: {{interface: right}}
limits: {{flows: 64k, memory: 64MiB}}
"""


class Later(lab.Probe):
    PORT = 7008


def left(service):
    return service.status()["affinity"]["left"]


def processes(service, port):
    """Which processes have seen each flow to a port."""
    flows = collections.defaultdict(set)
    with open(service.path("seen"), encoding="utf-8") as file:
        for line in file:
            pid, *ports = map(int, line.split())
            if port in ports:
                flows[sum(ports)].add(pid)
    return flows


def refused(service, status, words, *arguments):
    done = service.smctl(*arguments)
    expect(done.returncode == status and words in done.stderr, f"{' '.join(map(str, arguments))}: {done.stderr.strip()}", done)


def drain(service, path):
    old = lab.Probe(path.client, path.server, path.SERVER, flows=24, rate=240)
    expect(lab.wait_until(lambda: len(processes(service, old.PORT)) == 24, 30), "24 flows are seen")
    status = service.status()
    expect(sum(replica["flows"] for replica in status["replicas"]) >= 24, "status: flows by replica", status["replicas"])
    second = status["replicas"][1]
    expect(second["flows"] > 0, f"{second['name']} has {second['flows']} of them")

    done = service.smctl("scale", 1, "--timeout", "1s")
    expect(done.returncode == 5 and "flows are left" in done.stderr, f"scale 1: {done.stderr.strip()}", done)
    expect(left(service) > 0 and "left in replicas without shards" in service.smctl("status").stdout,
           f"status: {left(service)} are left")
    first = service.status()["replicas"][0]["pid"]
    new = Later(path.client, path.server, path.SERVER, flows=24, rate=240)
    expect(lab.wait_until(lambda: len(processes(service, new.PORT)) == 24, 30), "24 new flows are seen")
    expect(all(pids == {first} for pids in processes(service, new.PORT).values()), "by the first replica, all of them",
           processes(service, new.PORT))
    expect(all(len(pids) == 1 for pids in processes(service, old.PORT).values()), "each old one by one only",
           processes(service, old.PORT))

    for probe in (old.stop(), new.stop()):
        expect(probe["reordered"] == 0 and probe["duplicates"] == 0, "probe: none reordered, none twice", probe)
    done = service.smctl("scale", 1, "--timeout", "60s", timeout=70)
    expect(done.returncode == 0, f"when they have ended, {done.stdout.strip()}", done)
    expect(len(service.status()["replicas"]) == 1 and left(service) == 0, "one replica, none left")


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = lab.Path()
    service = lab.Service(given.build, path.middle)
    watcher = os.path.join(given.build, "tests/strategy/watcher")
    service.write("service.yaml", SERVICE.format(watcher=watcher))
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        live.finish()
    drain(service, path)
    done = service.smctl("scale", 2, "--strategy", "new-flows-only")
    expect(done.returncode == 0, done.stdout.strip(), done)
    refused(service, 1, "expected strategy drain", "scale", 1, "--strategy", "new-flows-only")
    refused(service, 2, "expected drain or new-flows-only", "scale", 1, "--strategy", "move")
    refused(service, 2, "expected move, drain, new-flows-only or restart", "scale", 1, "--strategy", "fast")
    expect(service.stop() == 0, "SIGTERM ends it", service.log())
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        live.expect_report(json.load(file), moves=True)

    service.write("policy.yaml", "limits: [{name: all, per: flow, rate: 1Mbit, burst: 64KiB}]\n")
    service.write("other.yaml", SERVICE.format(watcher="sm-ratelimiter").replace("[seen]", "[--policy, policy.yaml]"))
    process = service.start("other.yaml")
    expect(lab.wait_until(lambda: process.poll() is not None, 60) and process.returncode == 1
           and "expected move for a program that registers flow classes" in service.log(),
           "a program whose flows can move is refused", service.log())
    live.expect_alone()
    live.finish()


main()
