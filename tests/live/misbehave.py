#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Replicas that return what they were not given, that stop answering, and a packet that kills whoever processes it: the
service goes on, and what leaves is what it ought to be."""

import filecmp
import json
import os
import shutil
import signal
import struct
import subprocess
import time

import live
from live import expect, lab, records

SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
SERVICE = """service: odd
middlebox: {{exec: {exec}, args: [{how}, {mark}]}}
replicas: {{start: 3, min: 1, max: 4}}
ports:
  in: {{pcap: {input}, pace: {pace}}}
  out: {{pcap: out.pcap, order: arrival}}
limits: {{unresponsive: 1s}}
"""


def deadly_record(like):
    """A packet to UDP port 666, captured when `like` was."""
    payload = b"the number of the packet"
    udp = struct.pack("!HHHH", 4242, 666, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02")
    frame = bytes(12) + b"\x08\x00" + ip + udp
    return like[:8] + struct.pack("<II", len(frame), len(frame)) + frame


class Trial:
    def __init__(self, build, how, what):
        print(f"-- {what}")
        self.service, self.how = lab.Service(build), how
        self.program = os.path.join(build, "tests", "live", "misbehaving")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.service.process.poll() is None:
            self.service.stop()
        shutil.rmtree(self.service.folder)

    def start(self, capture=SAMPLE, pace="5kpps"):
        self.service.write("service.yaml", SERVICE.format(exec=self.program, how=self.how, mark=self.service.path("mark"),
                                                          input=capture, pace=pace))
        self.service.start("service.yaml", "--report", "report.json")

    def end(self, capture=SAMPLE):
        """The run's report, after the checks that hold for all of them; `capture` is what ought to have left."""
        try:
            code = self.service.process.wait(120)
        except subprocess.TimeoutExpired:
            code = "no end"
        expect(code == 0, f"status {code}", self.service.log()[-3000:])
        live.expect_no_sanitizer(self.service.log())
        subprocess.run([self.program, "none", "none", capture, self.service.path("alone.pcap")], timeout=60, check=True)
        try:
            with open(self.service.path("report.json"), encoding="utf-8") as file:
                report = json.load(file)
            same = filecmp.cmp(self.service.path("out.pcap"), self.service.path("alone.pcap"), shallow=False)
        except (OSError, ValueError) as reason:
            expect(False, f"there are a report and an output: {reason}", self.service.log())
            return None
        expect(same, "the output is the standalone one")
        live.expect_report(report, moves=False)
        return report


def expect_condemned(trial, why):
    report = trial.end()
    if not report:
        return
    found = [replica for replica in report["replicas"] if replica["condemned"]]
    expect(len(found) == 1 and found[0]["exit"] == "was killed by signal 9" and why in found[0]["condemned"],
           f"one replica was killed: {why}", report["replicas"])
    expect(report["deaths"]["condemned"] == 1 and report["deaths"]["replicas"] == 1, "and that is counted", report["deaths"])
    expect(why in trial.service.log(), "and said", trial.service.log())


def scribblers(build):
    for how, why in (("descriptor", "returned a descriptor that it was not given"),
                     ("produced", "committed more than its ring holds"),
                     ("consumed", "consumed what it was not given")):
        with Trial(build, how, f"a replica that scribbles: {how}") as trial:
            trial.start()
            expect_condemned(trial, why)


def journal(build):
    with Trial(build, "journal", "a replica that scribbles on its journal, and dies") as trial:
        trial.start()
        code = trial.service.process.wait(60)
        why = "destroyed its journal"
        expect(code == 1 and why in trial.service.log(), f"status {code}: {why}", trial.service.log())
        expect(not os.path.exists(trial.service.path("out.pcap")), "no output that looks whole")


def layout(build):
    with Trial(build, "layout", "a replica that scribbles on where its channel's parts are, and dies") as trial:
        trial.start()
        report = trial.end()
        if report:
            died = [replica["exit"] for replica in report["replicas"] if replica["exit"] != 0]
            expect(died == ["was killed by signal 6"], "it died, and that is all", report["replicas"])


def silent(build):
    with Trial(build, "hang", "a replica that does not come back from a packet") as trial:
        trial.start()
        expect_condemned(trial, "did not answer")
    with Trial(build, "none", "a replica that is stopped") as trial:
        trial.start(pace="1kpps")
        if not expect(trial.service.wait_running(60), "the service runs", trial.service.log()):
            return
        time.sleep(0.3)
        replicas = json.loads(trial.service.smctl("replicas", "--json").stdout)["replicas"]
        os.kill(replicas[1]["pid"], signal.SIGSTOP)
        expect_condemned(trial, "did not answer")


def poison(build):
    with Trial(build, "abort", "a packet that kills whoever processes it") as trial:
        header, packets = records(SAMPLE)
        middle = len(packets) // 2
        deadly = deadly_record(packets[middle])
        capture = trial.service.path("in.pcap")
        with open(capture, "wb") as file:
            file.write(header + b"".join(packets[:middle] + [deadly] + packets[middle:]))
        trial.start(capture)
        report = trial.end()  # as if it had not been there
        if not report:
            return
        expect(report["packets"]["dropped"] == {"poison": 1}, "one packet was dropped, as poison", report["packets"])
        died = [replica["exit"] for replica in report["replicas"] if replica["exit"] != 0]
        expect(died == ["was killed by signal 6"] * 3, "three replicas died of it", report["replicas"])
        kept = trial.service.path("odd.poison.pcap")
        if expect(os.path.exists(kept), "odd.poison.pcap is there", os.listdir(trial.service.folder)):
            expect(records(kept)[1] == [deadly], "and holds exactly that packet")


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    scribblers(given.build)
    journal(given.build)
    layout(given.build)
    silent(given.build)
    poison(given.build)
    live.expect_alone()
    live.finish()


main()
