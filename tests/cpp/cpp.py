#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Objects with virtual functions in the arena: they survive moves, deaths and new processes of their build, and a
process where they would not hold is refused.

usage: cpp.py SOURCE SMCTL TURNS OTHER_BUILD PIE
"""

import filecmp
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

source, smctl, turns, other, pie = map(os.path.abspath, sys.argv[1:6])
sys.path.insert(0, os.path.join(source, "tests/kit"))
from checks import expect, finish  # noqa: E402

DLT_RAW, SYN, ACK = 101, 2, 16
NO_RANDOMIZATION = 0x0040000  # personality(2)

SERVICE = """service: turns
middlebox: {exec: %s}
replicas: {start: %d, min: 1, max: 4}
ports:
  in:  {pcap: in.pcap, pace: max}
  out: {pcap: out.pcap, order: arrival}
limits: {flows: 100k, memory: 256MiB}
"""


def packet(protocol, source, destination, port, flags):
    """IPv4 and TCP or UDP, without checksums."""
    ports = (port, 80) if source < destination else (80, port)
    body = struct.pack(">HHIIBBHHH", *ports, 0, 0, 0x50, flags, 0, 0, 0) if protocol == 6 else struct.pack(">HHHH", *ports, 8, 0)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, source, destination) + body


def make(path):
    """90 conversations at once, whose ends speak at random, and of TCP now and then before they have met."""
    rng = random.Random(1)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, DLT_RAW))
        for number in range(3000):
            of = rng.randrange(90)
            ends = [bytes((10, 0, 0, of)), bytes((192, 0, 2, 1))]
            rng.shuffle(ends)
            data = packet(6 if of % 2 else 17, *ends, 1024 + of, rng.choice((SYN, ACK, ACK, ACK)))
            file.write(struct.pack("<IIII", 1700000000 + number // 1000, number % 1000 * 1000, len(data), len(data)) + data)


def run(folder, program, replicas, events):
    """smctl's exit status, all it said, and its report."""
    for name, text in ("service.yaml", SERVICE % (program, replicas)), ("events", events):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)
    report = os.path.join(folder, "report.json")
    if os.path.exists(report):
        os.unlink(report)
    done = subprocess.run([smctl, "run", "service.yaml", "--events", "events", "--report", "report.json"], cwd=folder,
                          env=dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run")), timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if not os.path.exists(report):
        return done.returncode, done.stdout, None
    with open(report, encoding="utf-8") as file:
        return done.returncode, done.stdout, json.load(file)


def same(folder):
    return filecmp.cmp(os.path.join(folder, "out.pcap"), os.path.join(folder, "alone.pcap"), shallow=False)


def lives_on(folder):
    status, said, report = run(folder, turns, 1, """packet=400 scale 3
packet=900 kill any
packet=1300 upgrade --exec %s --trial 0s
packet=1700 scale 1
packet=2000 scale 4
packet=2500 kill any
""" % turns)
    expect(status == 0 and report, "scaled, moved, killed and started anew", said)
    expect(report and report["packets"]["dropped"].get("out_of_turn", 0) > 0, "the objects decide something", report)
    expect(report and report["deaths"]["replicas"] == 2 and report["moves"]["completed"] > 0, "it was split", report)
    expect(same(folder), "and sends what one process sends")


def another_build(folder):
    status, said, _ = run(folder, turns, 2, "packet=500 upgrade --exec %s --trial 0s\n" % other)
    lines = [line for line in said.splitlines() if "conversations" in line]
    expect(status == 1 and any("holds addresses of code, which is of another build" in line for line in lines),
           "an upgrade to another build is refused", said)
    expect(same(folder), "and the service goes on as it was", said)


def another_place(folder):
    with open("/proc/sys/kernel/randomize_va_space", encoding="ascii") as file:
        randomized = file.read().strip() != "0"
    with open("/proc/self/personality", encoding="ascii") as file:
        randomized &= not int(file.read(), 16) & NO_RANDOMIZATION
    if not randomized:
        print("note: addresses are not randomized here: a program that is loaded elsewhere is not tried")
        return
    status, said, _ = run(folder, pie, 1, "packet=500 scale 2\n")
    expect(status == 1 and "holds addresses of code, which is at another place here: link it with -no-pie" in said,
           "a replica that is loaded elsewhere is refused", said)
    expect(same(folder), "and the one that is there goes on", said)


with tempfile.TemporaryDirectory(prefix="sm-") as at:
    make(os.path.join(at, "in.pcap"))
    subprocess.run([turns, os.path.join(at, "in.pcap"), os.path.join(at, "alone.pcap")], check=True, timeout=60)
    lives_on(at)
    another_build(at)
    another_place(at)
finish()
