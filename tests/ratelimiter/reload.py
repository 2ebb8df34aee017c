#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""SIGHUP to sm-ratelimiter alone: limits that stay keep their buckets to the token, a policy that is wrong is refused
with its line and the old one goes on.  reload.py PROGRAM SAMPLE"""

import filecmp
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM, SAMPLE = map(os.path.abspath, sys.argv[1:3])
STAY = ["{name: u, match: udp src port 53, per: flow, rate: 8kbit, burst: 600B}",
        "{name: t, match: udp dst port 53, per: flow, rate: 1pps, burst: 1, exceed: {shape: {queue: 2s}}}",
        "{name: p, match: udp dst port 53, per: host-pair, rate: 20pps, burst: 2}"]
MORE = "{name: more%d, match: udp port 9, per: flow, rate: 1Mbit, burst: 2KiB}"
OPEN = "{name: u, match: udp src port 53, per: flow, rate: 100Mbit, burst: 1MiB}"
WRONG = ["{name: x, per: flow, rate: 8, burst: 600B}", "{name: x, match: udpp, per: flow, rate: 8bit, burst: 1B}",
         "{name: x, per: flow}"]
SECONDS = 30  # to wait for what must come
failed = 0


def expect(condition, what, *details):
    global failed
    print(("ok   " if condition else "FAIL ") + what, *([] if condition else details), flush=True)
    failed += not condition


def records(capture):
    with open(capture, "rb") as file:
        yield file.read(24)
        while record := file.read(16):
            yield record + file.read(struct.unpack("<IIII", record)[2])


class Run:
    """The program, reading a pipe; what it says is kept."""

    def __init__(self, folder, lines):
        self.folder = folder
        self.policy(lines)
        self.process = subprocess.Popen(
            [PROGRAM, "--policy", "policy.yaml", "--in", "-", "--out", "out.pcap", "--report", "report.json"], cwd=folder,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
        self.said = []
        self.listener = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self.listener.start()

    def policy(self, lines):
        with open(os.path.join(self.folder, "policy.yaml"), "w", encoding="utf-8") as file:
            file.write("limits:\n" + "".join(f"  - {line}\n" for line in lines))

    def give(self, packets):
        for packet in packets:
            self.process.stdin.write(packet)
        self.process.stdin.flush()

    def wait(self, what):
        end = time.monotonic() + SECONDS
        while not what() and time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.005)
        return what()

    def catches_hangups(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return any(line.startswith("SigCgt:") and int(line.split()[1], 16) & 1 for line in file)

    def begin(self, packets):
        """It has opened its input, for which it may read ahead, when it catches the signal."""
        while not self.catches_hangups() and len(packets) > 1500 and self.process.poll() is None:
            self.give([packets.pop(0)])
            self.wait_a_little()
        expect(self.wait(self.catches_hangups), "it can be told to reload", self.said)

    @staticmethod
    def wait_a_little():
        time.sleep(0.02)

    def hang_up(self, packets):
        """SIGHUP, and packets until it has said how that went: a line."""
        count = len(self.said)
        self.process.send_signal(signal.SIGHUP)
        while len(self.said) == count and packets and self.process.poll() is None:
            self.give([packets.pop(0)])
            self.wait_a_little()
        self.wait(lambda: len(self.said) > count)
        return b"".join(self.said[count:]).decode()

    def end(self, packets):
        self.give(packets)
        self.process.stdin.close()
        code = self.process.wait(SECONDS)
        self.listener.join(SECONDS)
        expect(code == 0, "it ends well", code, self.said)
        with open(os.path.join(self.folder, "report.json"), encoding="utf-8") as file:
            return json.load(file)


def alone(folder, lines):
    with open(os.path.join(folder, "alone.yaml"), "w", encoding="utf-8") as file:
        file.write("limits:\n" + "".join(f"  - {line}\n" for line in lines))
    subprocess.run([PROGRAM, "--policy", "alone.yaml", "--in", SAMPLE, "--out", "alone.pcap"], cwd=folder, check=True)


def kept(folder):
    alone(folder, STAY)
    run, packets = Run(folder, STAY), list(records(SAMPLE))
    run.begin(packets)
    for number in range(9):
        run.give([packets.pop(0) for _ in range(random.randint(1, 80))])
        if number % 3 == 2:
            wrong = random.choice(WRONG)
            run.policy([*STAY[:2], wrong])
            said = run.hang_up(packets)
            expect("policy.yaml:4: limits[2]." in said and "what ran goes on" in said and said.count("\n") == 1,
                   f"refused: {said.strip()}")
        else:
            run.policy(random.sample([*STAY, MORE % number], 4))
            said = run.hang_up(packets)
            expect(said == "sm-ratelimiter: policy.yaml was reloaded\n", said.strip())
    report = run.end(packets)
    expect(filecmp.cmp(os.path.join(folder, "out.pcap"), os.path.join(folder, "alone.pcap"), shallow=False),
           "the output is that of one policy: every bucket was kept, and every delayed packet")
    expect(all(value == "held" for value in report["invariants"].values()), "every invariant held", report["invariants"])
    packets = report["packets"]
    expect(packets["in"] == packets["out"] + sum(packets["dropped"].values()), f"packets: {packets}")


def changed(folder):
    run, packets = Run(folder, STAY), list(records(SAMPLE))
    run.begin(packets)
    run.policy([OPEN, STAY[2], "{name: new, match: udp dst port 53, per: flow, rate: 1bit, burst: 1B}"])
    said = run.hang_up(packets)
    report = run.end(packets)
    expect("was reloaded" in said, said.strip())
    dropped = report["packets"]["dropped"]
    expect(dropped.get("limit:new", 0) > 100 and dropped.get("limit:u", 0) < 85, f"the new policy counts: {dropped}")


def main():
    seed = int(os.environ.get("SM_SEED", "1"))
    random.seed(seed)
    print(f"SM_SEED={seed}")
    with tempfile.TemporaryDirectory() as folder:
        kept(folder)
        changed(folder)
    print(f"{failed} failed")
    sys.exit(failed > 0)


main()
