#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The limiter's policy is changed while it runs: what has kept its name keeps its buckets to the token, whoever dies
meanwhile; a policy that is wrong is refused, and nothing has changed."""

import filecmp
import json
import os
import subprocess
import time

import live
from live import expect, lab

SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
PPS = 700

ANSWERS = "  - {name: u, match: udp src port 53, per: flow, rate: 8kbit, burst: 600B}\n"
QUESTIONS = "  - {name: t, match: udp dst port 53, per: flow, rate: 1pps, burst: 1, exceed: {shape: {queue: 2s}}}\n"
PAIR = "  - {name: p, match: udp dst port 53, per: host-pair, rate: 20pps, burst: 2}\n"
# Of a table of prefixes, in any order, with some of the others in between: those that matter keep what they have.
MATTER = ["10.77.1.1 4kbit 300B", "10.77.1.2", "10.77.1.5", "10.77.1.10 5kbit", "10.77.1.13", "10.77.1.17", "10.77.1.0/28 20kbit",
          "fd77::1"]
OTHERS = [f"10.{80 + i}.{i}.0/24" for i in range(40)]

NEW = "  - {name: new, match: udp dst port 53, per: flow, rate: 1kbit, burst: 10B}\n"
OPEN = "  - {name: u, match: udp src port 53, per: flow, rate: 100Mbit, burst: 1MiB}\n"

SERVICE = """service: reload
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{pcap: {input}, pace: {pps}pps}}
  out: {{pcap: out.pcap, order: arrival}}
"""


class Run:
    """A service over the capture; its folder has a policy to be changed."""

    def __init__(self, build, policy):
        self.service = lab.Service(build)
        self.policy(policy)
        self.service.write("service.yaml", SERVICE.format(input=SAMPLE, pps=PPS))
        done = subprocess.run(self.service.program("sm-ratelimiter", "--policy", "policy.yaml", "--in", SAMPLE, "--out",
                                                   "alone.pcap"), cwd=self.service.folder, timeout=120, check=False)
        expect(done.returncode == 0, "alone", done)
        self.process = self.service.start("service.yaml", "--report", "report.json")
        expect(self.service.wait_running(60), "the service runs", self.service.log())

    def policy(self, *lines):
        self.service.write("policy.yaml", "limits:\n" + "".join(lines))

    def reload(self, status=0):
        done = self.service.smctl("reload", timeout=90)
        expect(done.returncode == status, f"reload: {(done.stdout or done.stderr).strip()}", done, self.service.log())
        return done

    def end(self):
        code = self.process.wait(120)
        expect(code == 0, f"the service ends with status {code}", self.service.log())
        live.expect_no_sanitizer(self.service.log())
        with open(self.service.path("report.json"), encoding="utf-8") as file:
            report = json.load(file)
        live.expect_report(report, moves=True)
        return report


def kept(build):
    print("-- the same limits in another order, deaths, and policies that are wrong")
    run = Run(build, ANSWERS + QUESTIONS + PAIR)
    run.policy(PAIR, QUESTIONS, ANSWERS)
    run.reload()
    for wrong, word in ((ANSWERS.replace("8kbit", "8"), "rate"), (ANSWERS.replace("udp", "udpp"), "match"),
                        (ANSWERS.replace("flow", "source"), "host-pair")):
        run.policy(wrong)
        done = run.reload(status=1)
        expect(done.stderr.count("\n") == 1, "one line", done.stderr)
        expect(word in done.stderr, f"which says what is wrong: {word}", done.stderr)
    run.policy(QUESTIONS, ANSWERS, PAIR)
    victim = run.service.status()["replicas"][0]["pid"]
    reload = subprocess.Popen(run.service.program("smctl", "reload"), cwd=run.service.folder, env=run.service.environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    subprocess.run(["kill", "-9", str(victim)], check=False)
    said = reload.communicate(timeout=90)
    expect(reload.returncode in (0, 1, 4), f"reload while a replica dies: {''.join(said).strip()}")
    report = run.end()
    expect(filecmp.cmp(run.service.path("out.pcap"), run.service.path("alone.pcap"), shallow=False),
           "the output is the standalone one: every bucket was kept")
    expect({"limit:u", "limit:p"} <= set(report["packets"]["dropped"]), f"dropped: {report['packets']['dropped']}")


def changed(build):
    print("-- a limit more, one that is opened, one that is gone")
    run = Run(build, ANSWERS + QUESTIONS + PAIR)
    time.sleep(0.5)
    run.policy(NEW, OPEN, PAIR)
    run.reload()
    dropped = run.service.status()["packets"]["dropped"].get("limit:u", 0)
    report = run.end()
    after = report["packets"]["dropped"]
    expect(after.get("limit:u", 0) == dropped, f"the opened one drops no more: {dropped}", after)
    expect(after.get("limit:new", 0) > 0, f"the new one does: {after}")
    expect(report["shape"]["packets"] > 0, "the one that is gone had delayed packets", report["shape"])


def table(*lines):
    return ("  - {name: q, match: udp dst port 53, prefixes: {source: [" + ", ".join(f"'{line}'" for line in lines) +
            "]}, rate: 8kbit, burst: 600B}\n")


def prefixes(build):
    print("-- a table of prefixes, turned round, with others added in front and taken away")
    run = Run(build, table(*MATTER, *OTHERS[:20]))
    run.policy(table(*OTHERS, *reversed(MATTER)))
    run.reload()
    run.policy(table(*OTHERS[10:30], *MATTER[3:], *OTHERS[30:], *MATTER[:3]))
    run.reload()
    report = run.end()
    expect(filecmp.cmp(run.service.path("out.pcap"), run.service.path("alone.pcap"), shallow=False),
           "the output is the standalone one: each prefix has kept its bucket")
    expect(report["packets"]["dropped"].get("limit:q", 0) > 0, f"dropped: {report['packets']['dropped']}")


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    kept(given.build)
    changed(given.build)
    prefixes(given.build)
    live.expect_alone()
    live.finish()


main()
