# SPDX-License-Identifier: BSD-2-Clause
"""A middlebox that writes a log, as a service, processes and all: scaled, moved (also by copying), killed and upgraded at
random while a capture is read, its log and its output are those of one unsplit instance."""

import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
import time

SERVICE = """service: logged
middlebox: {exec: %s, args: [%s]}
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


def random_events(rng, packets, count, others):
    """Another number of replicas twice as often as each of the others."""
    def event():
        verb = rng.choice(["scale", "scale", *others])
        return "scale %d%s" % (rng.randint(1, 4), rng.choice(["", " --copy"])) if verb == "scale" else verb
    return "".join("packet=%d %s\n" % (at, event()) for at in sorted(rng.sample(range(1, packets * 9 // 10), count)))


def compare(build, program, arguments, capture, what, read, events, kills, left):
    """What `read` makes of the log is the same with each schedule. `events` of them, with `kills` as often as an upgrade;
    `left`: what is in the log before, made of that of the unsplit instance."""
    seed = int(os.environ.get("SM_SEED", time.time()))
    upgrade = "upgrade --exec %s --trial 0s --args %s" % (program, " ".join([*arguments, "--log", "log"]))
    print("seed %d: SM_SEED=%d to repeat" % (seed, seed))
    with tempfile.TemporaryDirectory(prefix="sm-") as folder:
        def path(name):
            return os.path.join(folder, name)

        def report(name):
            with open(path(name), encoding="utf-8") as file:
                return json.load(file)

        def log(name):
            with open(path(name), encoding="ascii") as file:
                return read(file)
        run(folder, program, *arguments, "--log", "alone", "--in", capture, "--out", "alone.pcap", "--report", "alone.json")
        alone = log("alone")
        with open(path("alone"), encoding="ascii") as file:
            before = left(file.read())
        for number in range(20 if os.environ.get("SM_FULL") else 1):
            rng = random.Random(seed + number)
            lines = random_events(rng, report("alone.json")["packets"]["in"], events, [*["kill any"] * kills, upgrade])
            service = SERVICE % (program, ", ".join([*arguments, "--log", "log"]), capture)
            for name, text in (("service.yaml", service), ("events", lines), ("log", before)):
                with open(path(name), "w", encoding="ascii") as file:
                    file.write(text)
            run(folder, os.path.join(build, "orchestrator/smctl"), "run", "service.yaml", "--events", "events",
                "--report", "report.json")
            made, split = report("report.json"), log("log")
            print("%d %s; %d moves, %d of them copied, %d deaths" % (
                split.total(), what, made["moves"]["completed"], made["moves"]["copy"], made["deaths"]["replicas"]))
            if split != alone or not filecmp.cmp(path("out.pcap"), path("alone.pcap"), shallow=False):
                sys.exit("FAIL seed %d: %s that are missing: %s, too many: %s" % (
                    seed + number, what, list((alone - split).items())[:3], list((split - alone).items())[:3]))
            if set(made["invariants"].values()) != {"held"} or made["moves"]["completed"] == 0:
                sys.exit("FAIL seed %d: %s" % (seed + number, made))
    return alone
