#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""--copy where a flow class cannot be copied: refused before anything moves, with one line that names the class.

usage: copying.py BUILD CAPTURE
"""
import json
import os
import subprocess
import sys
import tempfile

build, capture = map(os.path.abspath, sys.argv[1:3])
SERVICE = """service: copying
middlebox: {exec: %s, args: [nothing, %s]}
replicas: {start: 1, min: 1, max: 4}
mode: inline
ports:
  in:  {pcap: %s, pace: max}
  out: {pcap: out.pcap, order: arrival}
limits: {flows: 64k, memory: 64MiB}
"""
WHY = "flow class 'flows' cannot be copied: it declares neither fields nor callbacks encode and decode"

with tempfile.TemporaryDirectory(prefix="splitmerge-copying-") as folder:
    def place(name):
        return os.path.join(folder, name)

    with open(place("service.yaml"), "w") as file:
        file.write(SERVICE % (os.path.join(build, "tests/live/misbehaving"), place("mark"), capture))
    with open(place("events"), "w") as file:
        file.write("packet=100 scale 2 --copy\npacket=200 scale 3\n")
    env = dict(os.environ, SPLITMERGE_RUN=place("run"))
    run = subprocess.run([os.path.join(build, "orchestrator/smctl"), "run", "service.yaml", "--events", "events", "--report",
                          "report.json"], cwd=folder, env=env, timeout=100, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    report = json.load(open(place("report.json")))
    lines = [line for line in run.stdout.splitlines() if WHY in line]
    events = [event["result"] for event in report["events"]]
    moves = report["moves"]
    print(run.stdout, events, moves)
    assert run.returncode == 1, run.returncode
    assert lines and "event of line 1 (scale 2 --copy) was failed" in lines[0], lines
    assert events == ["failed", "done"], events
    assert moves["copy"] == 0 and moves["relabel"] == moves["completed"] > 0, moves
    assert moves["started"] == moves["completed"] < 16384, "only the second scaling moved anything"
    assert set(report["invariants"].values()) == {"held"}, report["invariants"]
