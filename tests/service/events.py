#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A whole service, processes and all, under fifty random events: its output file is the unsplit one's.

usage: events.py BUILD CAPTURE FALLBACK

For limits by flow, source, destination and host pair; SM_SEED fixes the events, SM_FULL=1 runs more of them. FALLBACK is
used where CAPTURE is not there.
"""
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402

build, capture, fallback = map(os.path.abspath, sys.argv[1:4])
if not os.path.exists(capture):
    print("%s is not there: the project's own sample is used" % capture)
    capture = fallback
seed = int(os.environ.get("SM_SEED", time.time()))
rounds = 8 if os.environ.get("SM_FULL") else 2
limiter = os.path.join(build, "middleboxes/ratelimiter/sm-ratelimiter")

POLICY = "limits: [{name: l, per: %s, rate: 60kbit, burst: 4KiB, exceed: drop}]\n"
SERVICE = """service: events
middlebox: {exec: %s, args: [--policy, policy.yaml]}
replicas: {start: 1, min: 1, max: 8}
mode: inline
ports:
  in:  {pcap: %s, pace: max}
  out: {pcap: out.pcap, order: arrival}
limits: {flows: 1M, memory: 256MiB}
"""


def random_events(rng, packets):
    """Scale, split, merge and move, by relabelling or copying, knowing who there is."""
    names, started, lines = ["r1"], 1, []
    for packet in sorted(rng.randrange(1, packets - packets // 20) for _ in range(50)):
        verb = rng.choice(["scale", "split", "merge", "move", "move", "drain", "rebalance"])
        if verb == "scale":
            count = rng.randrange(1, 7)
            while len(names) < count:
                started += 1
                names.append("r%d" % started)
            del names[count:]
            what = "scale %d" % count
        elif verb == "split" and len(names) < 7:
            what = "split " + rng.choice(names)
            started += 1
            names.append("r%d" % started)
        elif verb == "merge" and len(names) > 1:
            gone, into = rng.sample(names, 2)
            what = "merge %s --into %s" % (gone, into)
            names.remove(gone)
        elif verb == "drain" and len(names) > 1:
            what = "drain " + rng.choice(names)
        elif verb == "rebalance":
            what = verb
        else:
            first = rng.randrange(0, 16000)
            what = "move shards:%d-%d --to %s" % (first, first + rng.randrange(1, 384), rng.choice(names))
        lines.append("packet=%d %s%s\n" % (packet, what, rng.choice(["", " --copy"])))
    return "".join(lines)


def run(folder, *command):
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
    return subprocess.run(command, cwd=folder, env=env, timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)


def one(folder, per, number):
    def place(name):
        return os.path.join(folder, name)

    with open(place("policy.yaml"), "w") as file:
        file.write(POLICY % per)
    with open(place("service.yaml"), "w") as file:
        file.write(SERVICE % (limiter, capture))
    alone = run(folder, limiter, "--policy", "policy.yaml", "--in", capture, "--out", "alone.pcap", "--report", "alone.json")
    expect(alone.returncode == 0, "%s: unsplit" % per, alone.stdout)
    packets = json.load(open(place("alone.json")))["packets"]
    with open(place("events"), "w") as file:
        file.write(random_events(random.Random(number), packets["in"]))
    split = run(folder, os.path.join(build, "orchestrator/smctl"), "run", "service.yaml", "--events", "events", "--report",
                "report.json")
    name = "%s, SM_SEED=%d" % (per, number)
    expect(split.returncode == 0, name + ": exit status", split.stdout)
    report = json.load(open(place("report.json")))
    moves = report["moves"]
    expect(filecmp.cmp(place("alone.pcap"), place("out.pcap"), shallow=False), name + ": the output is the unsplit one")
    expect(report["packets"] == packets, name + ": the same packets", report["packets"])
    expect(set(report["invariants"].values()) == {"held"}, name + ": invariants", report["invariants"])
    expect(moves["completed"] >= 1000, name + ": at least 1000 moves", moves)
    expect(moves["relabel"] > 0 and moves["copy"] > 0 and
          moves["relabel"] + moves["copy"] == moves["completed"], name + ": moves of both kinds", moves)
    expect(report["in_flight_max"]["replicas"] >= 2, name + ": packets in two replicas at once", report["in_flight_max"])
    print("%s: %d packets, %d dropped, %d moves completed, %d of them by copying, %d packets held, pause p50 %.0f us" % (
        name, packets["in"], sum(packets["dropped"].values()), moves["completed"], moves["copy"], moves["held_packets"],
        moves["pause_us"]["p50"]))
    return moves["held_packets"]


held = 0
with tempfile.TemporaryDirectory(prefix="splitmerge-events-") as base:
    for number in range(rounds):
        for key in ("flow", "source", "destination", "host-pair"):
            held += one(base, key, seed + number)
expect(held > 0, "packets waited in holds")
checks.finish()
