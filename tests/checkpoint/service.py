#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoints of whole services, processes and all: what was restored goes on as if it had not stopped.

usage: service.py BUILD CAPTURE

For limits by flow and host pair: the output of the packets behind the checkpoint, in a new service, is what the unsplit
program makes of them behind the others. Files that were altered, and wrong use, are refused with one line.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from captures import records  # noqa: E402
from checks import expect  # noqa: E402

import reader

build, capture = map(os.path.abspath, sys.argv[1:3])
seed = int(os.environ.get("SM_SEED", time.time()))
limiter = os.path.join(build, "middleboxes/ratelimiter/sm-ratelimiter")
smctl = os.path.join(build, "orchestrator/smctl")

POLICY = "limits: [{name: l, per: %s, rate: 60kbit, burst: 4KiB, exceed: drop}]\n"
SERVICE = """service: checkpoint
middlebox: {exec: %s, args: [--policy, policy.yaml]}
replicas: {start: 2, min: 1, max: 6}
ports:
  in:  {pcap: %s, pace: max}
  out: {pcap: out.pcap, order: arrival}
limits: {flows: 1M, memory: 256MiB}
"""


def run(folder, *command):
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
    return subprocess.run(command, cwd=folder, env=env, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)


def write(path, head, some):
    with open(path, "wb") as file:
        file.write(head + b"".join(some))


def alone(folder, source, output):
    result = run(folder, limiter, "--policy", "policy.yaml", "--in", source, "--out", output)
    expect(result.returncode == 0, "unsplit over %s" % source, result.stdout)
    return records(os.path.join(folder, output))[1]


def service(folder, source, events, *more):
    with open(os.path.join(folder, "service.yaml"), "w") as file:
        file.write(SERVICE % (limiter, source))
    with open(os.path.join(folder, "events"), "w") as file:
        file.write(events)
    return run(folder, smctl, "run", "service.yaml", "--events", "events", *more)


def read_back(folder, name):
    checkpoint = reader.read(os.path.join(folder, "saved"))
    expect(checkpoint.header["service"] == "checkpoint", name + ": it names its service", checkpoint.header)
    expect(len(checkpoint.flows) > 0, name + ": there are flows in it")
    expect(all(flow.fields["tokens"] >= 0 for flow in checkpoint.flows), name + ": all have tokens")
    expect(len({(f.cls, f.key) for f in checkpoint.flows}) == len(checkpoint.flows), name + ": no key is there twice")
    return len(checkpoint.flows)


def goes_on(folder, per, rng):
    with open(os.path.join(folder, "policy.yaml"), "w") as file:
        file.write(POLICY % per)
    head, packets = records(capture)
    cut = rng.randrange(len(packets) // 10, len(packets) - 20)
    name = "by %s, SM_SEED=%d, cut at %d of %d" % (per, seed, cut, len(packets))
    write(os.path.join(folder, "first.pcap"), head, packets[:cut])
    write(os.path.join(folder, "rest.pcap"), head, packets[cut:])
    whole = alone(folder, capture, "whole.pcap")
    first = alone(folder, "first.pcap", "first-out.pcap")

    scale = cut // 2 + 1
    result = service(folder, capture, "packet=%d scale 4\npacket=%d checkpoint saved\npacket=%d scale 1\n" % (
        scale, cut, cut + 5))
    expect(result.returncode == 0, name + ": the service that is saved", result.stdout)
    expect(records(os.path.join(folder, "out.pcap"))[1] == whole, name + ": its output")
    flows = read_back(folder, name)
    result = service(folder, "rest.pcap", "packet=5 scale 4\npacket=15 scale 2\n", "--restore", "saved", "--report",
                     "report.json")
    expect(result.returncode == 0, name + ": the service that is restored", result.stdout)
    expect(records(os.path.join(folder, "out.pcap"))[1] == whole[len(first):], name + ": what was restored goes on")
    report = json.load(open(os.path.join(folder, "report.json")))
    expect(set(report["invariants"].values()) == {"held"}, name + ": invariants", report["invariants"])
    print("%s: %d flows saved and restored" % (name, flows))


def one_line(what, result, status, words):
    lines = result.stdout.strip().split("\n")
    expect(result.returncode == status and len(lines) == 1 and words in lines[0], what, "%d: %s" % (
        result.returncode, result.stdout))


def refused(folder):
    saved = open(os.path.join(folder, "saved"), "rb").read()
    rng = random.Random(seed)
    for what, data in (("cut", saved[: rng.randrange(len(saved))]), ("none", b""), ("longer", saved + b"\0")):
        with open(os.path.join(folder, "bad"), "wb") as file:
            file.write(data)
        one_line("a file that is %s" % what, service(folder, "rest.pcap", "", "--restore", "bad"), 1, "bad: ")
    at = rng.randrange(len(saved))
    with open(os.path.join(folder, "bad"), "wb") as file:
        file.write(saved[:at] + bytes([saved[at] ^ 1 << rng.randrange(8)]) + saved[at + 1 :])
    one_line("a bit of byte %d is another" % at, service(folder, "rest.pcap", "", "--restore", "bad"), 1, "bad: ")
    one_line("no file", run(folder, smctl, "run", "service.yaml", "--restore", "nowhere"), 1, "nowhere: ")
    one_line("no service", run(folder, smctl, "checkpoint", "saved"), 3, "service")
    one_line("no name", run(folder, smctl, "checkpoint"), 2, "checkpoint FILE")
    one_line("no name to restore", run(folder, smctl, "restore"), 2, "restore FILE")
    result = service(folder, capture, "packet=10 checkpoint nowhere/saved\n")
    expect(result.returncode == 1 and "nowhere/saved.partial: No such file" in result.stdout, "a folder that is not there",
          result.stdout)


def running(folder):
    """A service that waits for packets: checkpoint while it runs, and restore is refused as there are flows."""
    with open(os.path.join(folder, "service.yaml"), "w") as file:
        file.write((SERVICE % (limiter, capture)).replace("pace: max", "pace: 200pps"))
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
    process = subprocess.Popen([smctl, "run", "service.yaml"], cwd=folder, env=env)
    try:
        for _ in range(200):
            status = run(folder, smctl, "status", "--json")
            if status.returncode == 0 and json.loads(status.stdout)["flows"]["live"] > 0:
                break
            time.sleep(0.05)
        result = run(folder, smctl, "checkpoint", "live", "--json")
        expect(result.returncode == 0, "checkpoint of a running service", result.stdout)
        expect(len(reader.read(os.path.join(folder, "live")).flows) == json.loads(
            result.stdout)["flows"], "as many flows as it says", result.stdout)
        one_line("restore where there are flows", run(folder, smctl, "restore", "live"), 1, "where there are none")
        expect(not os.path.exists(os.path.join(folder, "live.partial")), "no file is left over")
    finally:
        run(folder, smctl, "stop")
        process.wait(timeout=30)


with tempfile.TemporaryDirectory(prefix="splitmerge-checkpoint-", dir="/dev/shm") as base:
    for number, key in enumerate(("flow", "host-pair", "flow")):
        goes_on(base, key, random.Random(seed + number))
    refused(base)
    running(base)
checks.finish()
