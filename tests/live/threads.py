#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Replicas that are threads of one process: split, merged and killed they do what replicas in processes of their own do;
they die together, and what leaves is what one unsplit instance would have sent.

SM_SEED fixes the random numbers (not the kernel's timing).
"""

import filecmp
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import live
from live import expect, lab, records

SEED = int(os.environ.get("SM_SEED", "0"), 0) or random.SystemRandom().randrange(1, 1 << 31)
SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
PACKETS = 2300
THREADS = 3

POLICY = """limits:
  - {name: udp, match: udp, per: flow, rate: 64kbit, burst: 4KiB}
  - {name: pair, per: host-pair, rate: 1Mbit, burst: 32KiB}
"""
SERVICE = """service: threads
middlebox: {{exec: {exec}, args: [{args}], threads: {threads}}}
replicas: {{start: {start}, min: 1, max: 8}}
ports:
  in: {{pcap: {input}, pace: {pace}}}
  out: {{pcap: out.pcap, order: arrival}}
limits: {{unresponsive: {patience}}}
"""


class Trial:
    """A run of a service over a capture, and what the middlebox alone makes of the same."""

    def __init__(self, build, what, how=None):
        print(f"-- {what}")
        self.service, self.input = lab.Service(build), SAMPLE
        self.misbehaving = os.path.join(build, "tests", "live", "misbehaving")
        self.exec, self.args = "sm-ratelimiter", "--policy, policy.yaml"
        if how:
            self.exec, self.args = self.misbehaving, f"{how}, {self.service.path('mark')}"
        self.service.write("policy.yaml", POLICY)

    def feed(self, packets):
        """Packets of its own to read."""
        self.input = self.service.path("in.pcap")
        with open(self.input, "wb") as file:
            file.write(records(SAMPLE)[0] + b"".join(packets))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.service.process and self.service.process.poll() is None:
            self.service.stop()
        shutil.rmtree(self.service.folder)

    def start(self, *options, start=THREADS, pace="max", patience="5s"):
        self.service.write("service.yaml", SERVICE.format(exec=self.exec, args=self.args, threads=THREADS, start=start,
                                                          input=self.input, pace=pace, patience=patience))
        self.service.start("service.yaml", "--report", "report.json", *options)

    def alone(self, capture):
        ours = self.service.program("sm-ratelimiter", "--policy", "policy.yaml", "--in", capture, "--out", "alone.pcap")
        theirs = [self.misbehaving, "none", "none", capture, "alone.pcap"]
        subprocess.run(theirs if self.exec == self.misbehaving else ours, cwd=self.service.folder, timeout=120, check=True)
        return self.service.path("alone.pcap")

    def report(self, moves, patience=240):
        """The report of a run that ended well; None: it did not."""
        try:
            code = self.service.process.wait(patience)
        except subprocess.TimeoutExpired:
            code = f"no end within {patience} s"
        live.expect_no_sanitizer(self.service.log())
        if not expect(code == 0, f"status {code}", self.service.log()[-3000:]):
            return None
        with open(self.service.path("report.json"), encoding="utf-8") as file:
            report = json.load(file)
        live.expect_report(report, moves=moves)
        return report

    def end(self, capture=None, output="out.pcap"):
        """The same; and its output is the standalone one of `capture`, or of what was read."""
        report = self.report(moves=False)
        if not report:
            return None
        if not capture:
            header, packets = records(self.input)
            capture = self.service.path("read.pcap")
            with open(capture, "wb") as file:
                file.write(header + b"".join(packets[:report["packets"]["in"]]))
        same = filecmp.cmp(self.service.path(output), self.alone(capture), shallow=False)
        expect(same, "the output is the standalone one")
        return report

    def scale(self, count):
        """Once what is under way, replacements for example, has been done."""
        done = lab.wait_until(lambda: self.service.smctl("scale", count, timeout=90).returncode == 0, 60)
        expect(done, f"scale {count}", self.service.log())

    def comes_to(self, right, what):
        """`right` holds soon, of what processes() gives."""
        expect(lab.wait_until(lambda: right(*self.processes()), 60), what, self.processes(), self.service.log())

    def processes(self):
        """The pids of the replicas' processes, and how many replicas there are."""
        try:
            pids = [replica["pid"] for replica in json.loads(self.service.smctl("replicas", "--json").stdout)["replicas"]]
        except (ValueError, KeyError):
            pids = []
        return set(pids), len(pids)


def deaths(report):
    return [replica["exit"] for replica in report["replicas"] if replica["exit"] != 0]


def scheduled(build, rng):
    """Split, merged, moved, copied and killed at packets of a capture; now and then it is the orchestrator that is."""
    with Trial(build, "events over a capture") as trial:
        verbs = ["move udp --to r2", "scale 4", "kill any", "scale 2", "scale 5 --copy", "kill any", "kill orchestrator",
                 "scale 1", "scale 6", "kill any", "scale 3"]
        places = sorted(rng.sample(range(10, PACKETS - 10), len(verbs)))
        lines = [f"packet={place} {verb}" for place, verb in zip(places, verbs)]
        trial.service.write("events", "\n".join(lines) + "\n")
        trial.start("--events", "events")
        report = trial.end()
        if not report:
            print("\n".join(lines))
            return
        died = report["deaths"]["replicas"]
        expect(died >= THREADS + 2, f"{died} replicas died in 3 kills, {report['moves']['completed']} moves, "
               f"{report['deaths']['taken_over_packets']} packets taken over", report["replicas"])
        expect(report["in_flight_max"]["replicas"] >= 2, "packets were in two replicas at once", report["in_flight_max"])


def from_outside(build, rng):
    """SIGKILL at any instant, seen as a user sees it."""
    with Trial(build, "a process is killed") as trial:
        trial.feed(20 * records(SAMPLE)[1])  # more than there is time for
        trial.start(pace="600pps")
        if not expect(trial.service.wait_running(60), "the service runs", trial.service.log()):
            return
        first, count = trial.processes()
        expect(len(first) == 1 and count == THREADS, f"{count} replicas in {len(first)} process")
        time.sleep(rng.random() * 0.5)
        os.kill(next(iter(first)), signal.SIGKILL)
        trial.comes_to(lambda pids, count: count == THREADS and len(pids) == 1 and pids != first,
                       "others take their place, in one process")
        second, _ = trial.processes()
        trial.scale(THREADS + 1)
        trial.comes_to(lambda pids, count: count == THREADS + 1 and len(pids) == 2, "one more is a process of its own")
        trial.scale(1)
        trial.comes_to(lambda pids, count: count == 1 and pids == second, "one thread is left of the first process")
        trial.service.process.terminate()
        report = trial.end(output="out.pcap.partial")
        if report:
            expect(deaths(report) == ["was killed by signal 9"] * THREADS, "three deaths are reported", report["replicas"])
            expect(report["deaths"]["replicas"] == THREADS, "and counted", report["deaths"])


def hanging(build):
    with Trial(build, "one of them hangs", "hang") as trial:
        trial.start(pace="5kpps", patience="1s")
        report = trial.end()
        if report:
            condemned = [replica["name"] for replica in report["replicas"] if replica["condemned"]]
            expect(len(condemned) == 1 and deaths(report) == ["was killed by signal 9"] * THREADS,
                   "one was condemned, and its process killed", report["replicas"])


def deadly(like):
    """A packet to UDP port 666, captured when the record `like` was."""
    udp = struct.pack("!HHHH", 4242, 666, 12, 0) + b"kill"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02")
    frame = bytes(12) + b"\x08\x00" + ip + udp
    return like[:8] + struct.pack("<II", len(frame), len(frame)) + frame


def poison(build):
    """It takes three processes with it; nothing that their other replicas had in hand is dropped."""
    with Trial(build, "a packet that kills whoever processes it", "abort") as trial:
        packets = records(SAMPLE)[1]
        middle = len(packets) // 2
        trial.feed(packets[:middle] + [deadly(packets[middle])] + packets[middle:])
        trial.start(pace="5kpps")
        report = trial.end(SAMPLE)  # as if it had not been there
        if report:
            expect(report["packets"]["dropped"] == {"poison": 1}, "one packet was dropped, as poison", report["packets"])
            died = deaths(report)
            expect(len(died) > 3 and set(died) == {"was killed by signal 6"}, f"{len(died)} replicas died of it",
                   report["replicas"])


def switch_dies(build):
    """Its replicas go with it, those that had been retired before too; as many packets are lost as are counted."""
    with Trial(build, "the switch dies") as trial:
        trial.service.write("events", "packet=500 kill switch\npacket=1200 scale 1\npacket=1600 kill switch\n"
                            "packet=2000 scale 4\n")
        trial.start("--events", "events", pace="5kpps")
        report = trial.report(moves=True, patience=120)
        if not report:
            return
        expect(report["packets"]["in"] == PACKETS and report["deaths"]["switch"] == 2, f"{report['packets']}", report["deaths"])


def misconfigured(build):
    with Trial(build, "a policy that is not there") as trial:
        trial.args = "--policy, nowhere.yaml"
        trial.start()
        code = trial.service.process.wait(60)
        said = [line for line in trial.service.log().splitlines() if "nowhere.yaml" in line and "sm-orch" in line]
        expect(code == 1 and len(said) == 1, f"status {code}: {said}", trial.service.log())


def unprepared(build):
    """A program that runs one replica, whatever the service file says."""
    with Trial(build, "a program that is not made for it") as trial:
        trial.exec, trial.args = os.path.join(build, "middleboxes", "template", "guard"), ""
        trial.start()
        code = trial.service.process.wait(60)
        said = [line for line in trial.service.log().splitlines() if "middlebox.threads" in line and "sm-orch" in line]
        expect(code == 1 and len(said) == 1, f"status {code}: {said}", trial.service.log())


def main():
    given = live.arguments(__doc__)
    print(f"seed {SEED}: SM_SEED={SEED} to repeat")
    live.enter_or_skip()
    rng = random.Random(SEED)
    scheduled(given.build, rng)
    from_outside(given.build, rng)
    hanging(given.build)
    poison(given.build)
    switch_dies(given.build)
    misconfigured(given.build)
    unprepared(given.build)
    live.expect_alone()
    live.finish()


main()
