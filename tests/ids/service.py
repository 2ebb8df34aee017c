#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-ids as a service, processes and all: scaled, moved (also by copying), killed and upgraded at random while a capture
is read, the log has the alerts of one unsplit instance, each as often.

usage: service.py BUILD RULES CAPTURE        (SM_SEED fixes the events, SM_FULL=1 runs more of them)
"""
import collections
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
import time

build, rules, capture = map(os.path.abspath, sys.argv[1:4])
ids = os.path.join(build, "middleboxes/ids/sm-ids")
seed = int(os.environ.get("SM_SEED", time.time()))

SERVICE = """service: ids
middlebox: {exec: %s, args: [--rules, %s, --log, alerts]}
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
    upgrade = "upgrade --exec %s --trial 0s --args --rules %s --log alerts" % (ids, rules)

    def event():
        verb = rng.choice(["scale", "scale", "kill any", "kill any", upgrade])
        return "scale %d%s" % (rng.randint(1, 4), rng.choice(["", " --copy"])) if verb == "scale" else verb
    return "".join("packet=%d %s\n" % (at, event()) for at in sorted(rng.sample(range(1, packets * 9 // 10), 12)))


def alerts(path):
    """Each line as often as it is there."""
    with open(path, encoding="ascii") as file:
        return collections.Counter(line for line in file if json.loads(line)["event_type"] == "alert")


def main():
    print("seed %d: SM_SEED=%d to repeat" % (seed, seed))
    with tempfile.TemporaryDirectory(prefix="sm-") as folder:
        def path(name):
            return os.path.join(folder, name)

        def report(name):
            with open(path(name), encoding="utf-8") as file:
                return json.load(file)
        run(folder, ids, "--rules", rules, "--log", "alone", "--in", capture, "--out", "alone.pcap", "--report", "alone.json")
        alone = alerts(path("alone"))
        if sum(alone.values()) < 10:
            sys.exit("FAIL too few alerts to tell")
        for number in range(20 if os.environ.get("SM_FULL") else 1):
            rng = random.Random(seed + number)
            events = random_events(rng, report("alone.json")["packets"]["in"])
            # What an earlier run left in the file does not stay.
            with open(path("alone"), encoding="ascii") as file:
                left = 2 * file.read()
            for name, text in (("service.yaml", SERVICE % (ids, rules, capture)), ("events", events),
                               ("alerts", left)):
                with open(path(name), "w", encoding="ascii") as file:
                    file.write(text)
            run(folder, os.path.join(build, "orchestrator/smctl"), "run", "service.yaml", "--events", "events",
                "--report", "report.json")
            made, split = report("report.json"), alerts(path("alerts"))
            print("%d alerts; %d moves, %d of them copied, %d deaths" % (
                sum(split.values()), made["moves"]["completed"], made["moves"]["copy"], made["deaths"]["replicas"]))
            if split != alone or not filecmp.cmp(path("out.pcap"), path("alone.pcap"), shallow=False):
                sys.exit("FAIL seed %d: alerts that are missing: %s, too many: %s" % (
                    seed + number, list((alone - split).items())[:3], list((split - alone).items())[:3]))
            if set(made["invariants"].values()) != {"held"} or made["moves"]["completed"] == 0:
                sys.exit("FAIL seed %d: %s" % (seed + number, made))


main()
