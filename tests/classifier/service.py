#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The classifier as a service, processes and all: scaled, moved (also by copying), killed and upgraded at random while
flows are being detected, each flow gets the line that it gets unsplit.

usage: service.py BUILD CAPTURE        (SM_SEED fixes the events, SM_FULL=1 runs more of them)
"""
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
import time

build, capture = map(os.path.abspath, sys.argv[1:3])
classifier = os.path.join(build, "middleboxes/classifier/sm-classifier")
samples = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "samples")
seed = int(os.environ.get("SM_SEED", time.time()))

SERVICE = """service: classifier
middlebox: {exec: %s, args: [--log, lines]}
replicas: {start: 1, min: 1, max: 4}
ports:
  in:  {pcap: %s, pace: max}
  out: {pcap: out.pcap, order: arrival}
limits: {flows: 100k, memory: 256MiB}
"""


def run(folder, *command):
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
    done = subprocess.run(command, cwd=folder, env=env, timeout=400, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    if done.returncode:
        sys.exit("FAIL %s: exit %d\n%s" % (command[0], done.returncode, done.stdout[-3000:]))


def random_events(rng, packets):
    def event():
        verb = rng.choice(["scale", "scale", "kill any", "upgrade"])
        if verb == "scale":
            return "scale %d%s" % (rng.randint(1, 4), rng.choice(["", " --copy"]))
        return verb if verb == "kill any" else "upgrade --exec %s --trial 0s --args --log lines" % classifier
    return "".join("packet=%d %s\n" % (at, event()) for at in sorted(rng.sample(range(1, packets * 9 // 10), 16)))


def lines(path):
    """The different ones: each is written at least once."""
    with open(path, encoding="ascii") as file:
        return {line for line in file if json.loads(line)}


def without_ethernet():
    """A capture of bare IP packets: their headers begin at 0."""
    with tempfile.TemporaryDirectory(prefix="sm-") as folder:
        run(folder, classifier, "--log", "raw", "--in", os.path.join(samples, "raw.pcap"))
        with open(os.path.join(folder, "raw"), encoding="ascii") as file:
            said = {json.loads(line)["protocol"] for line in file}
        if not said >= {"ICMP", "ICMPV6", "HTTP"}:
            sys.exit("FAIL bare IP packets are taken for %s" % said)


def main():
    without_ethernet()
    print("seed %d: SM_SEED=%d to repeat" % (seed, seed))
    with tempfile.TemporaryDirectory(prefix="sm-") as folder:
        def path(name):
            return os.path.join(folder, name)
        run(folder, classifier, "--log", "alone", "--in", capture, "--out", "alone.pcap", "--report", "alone.json")
        with open(path("alone.json"), encoding="utf-8") as file:
            packets = json.load(file)["packets"]["in"]
        for number in range(20 if os.environ.get("SM_FULL") else 1):
            rng = random.Random(seed + number)
            for name, text in ("service.yaml", SERVICE % (classifier, capture)), ("events", random_events(rng, packets)):
                with open(path(name), "w", encoding="ascii") as file:
                    file.write(text)
            open(path("lines"), "w", encoding="ascii").close()
            run(folder, os.path.join(build, "orchestrator/smctl"), "run", "service.yaml", "--events", "events",
                "--report", "report.json")
            with open(path("report.json"), encoding="utf-8") as file:
                report = json.load(file)
            alone, split = lines(path("alone")), lines(path("lines"))
            print("%d lines; %d moves, %d of them copied, %d deaths" % (
                len(split), report["moves"]["completed"], report["moves"]["copy"], report["deaths"]["replicas"]))
            if split != alone or not filecmp.cmp(path("out.pcap"), path("alone.pcap"), shallow=False):
                sys.exit("FAIL seed %d: lines that are missing: %s, too many: %s" % (
                    seed + number, sorted(alone - split)[:3], sorted(split - alone)[:3]))
            if set(report["invariants"].values()) != {"held"} or report["moves"]["completed"] == 0:
                sys.exit("FAIL seed %d: %s" % (seed + number, report))


main()
