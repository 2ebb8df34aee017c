#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The orchestrator killed by SIGKILL, again and again: by events, and from outside at any instant, in the midst of
splits and merges, while replicas die too. The service goes on by itself, and what leaves is what an unkilled, unsplit
instance would have sent.

SM_SEED fixes the random numbers (not the kernel's timing); SM_FULL=1 kills more.
"""

import filecmp
import json
import os
import random
import signal
import subprocess
import time

import live
from live import expect, lab

FULL = os.environ.get("SM_FULL", "") not in ("", "0")
SEED = int(os.environ.get("SM_SEED", "0"), 0) or random.SystemRandom().randrange(1, 1 << 31)
SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
PACKETS = 2300

POLICY = """limits:
  - {name: udp, match: udp, per: flow, rate: 64kbit, burst: 4KiB}
"""
CAPTURE = """service: restart
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 5}}
ports:
  in: {{pcap: {input}, pace: {pps}pps}}
  out: {{pcap: out.pcap, order: arrival}}
"""


def service_of(build, pps):
    service = lab.Service(build)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", CAPTURE.format(input=SAMPLE, pps=pps))
    done = subprocess.run(service.program("sm-ratelimiter", "--policy", "policy.yaml", "--in", SAMPLE, "--out",
                                          "alone.pcap"), cwd=service.folder, timeout=120, check=False)
    expect(done.returncode == 0, "the middlebox alone")
    return service


def processes(name):
    """Pids of the programs of that name."""
    return [pid for pid, command in lab.others() if os.path.basename(command.split(" ")[0]) == name]


def kill(name, rng):
    """One of the processes of that name dies now; False: there was none."""
    found = processes(name)
    if not found:
        return False
    try:
        os.kill(rng.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def report_of(service, seconds=30):
    """Status and report at the end of the run."""
    try:
        code = service.process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = f"no end within {seconds} s"
    expect(code == 0, f"status {code}", service.log()[-3000:])
    live.expect_no_sanitizer(service.log())
    try:
        with open(service.path("report.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as reason:
        expect(False, f"there is a report: {reason}", service.log()[-3000:])
        return None


def expect_unharmed(service, report):
    if not report:
        return
    live.expect_report(report, moves=False)
    expect(filecmp.cmp(service.path("out.pcap"), service.path("alone.pcap"), shallow=False),
           "the output is the standalone one")


def by_events(build, rng):
    print("-- the orchestrator, by events, between scalings and deaths of replicas")
    service = service_of(build, 4000)
    lines = []
    for at in sorted(rng.sample(range(10, PACKETS - 100), 24)):
        verb = rng.choice(["kill orchestrator", "kill orchestrator", f"scale {rng.randint(1, 5)}", "kill any"])
        lines.append(f"packet={at} {verb}")
    lines.append(f"packet={PACKETS - 50} kill orchestrator")
    service.write("events", "\n".join(lines) + "\n")
    service.start("service.yaml", "--events", "events", "--report", "report.json")
    report = report_of(service)
    expect_unharmed(service, report)
    if report:
        done = [event["result"] for event in report["events"]]
        deaths = service.log().count("sm-orchestrator was killed by signal 9")
        expect(done == ["done"] * len(lines), f"{len(done)} events done", report["events"])
        expect(deaths == sum("orchestrator" in line for line in lines), f"{deaths} deaths of the orchestrator")


def from_outside(build, rng, count):
    """Killed while clients ask for splits: each is done, or can be done afterwards."""
    print("-- the orchestrator, at random instants, in the midst of operations")
    service = service_of(build, 300)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    for number in range(count):
        wanted = rng.randint(1, 5)
        asked = subprocess.Popen(service.program("smctl", "scale", wanted), env=service.environment,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.05)
        kill("sm-orchestrator", rng)
        if rng.random() < 0.3:
            kill("sm-ratelimiter", rng)
        asked.wait(30)
        if number == 0:
            seen = service.smctl("status")
            expect(seen.returncode in (0, 3, 4), f"status meanwhile: {seen.returncode} {seen.stderr.strip()}")

        def scaled(wanted=wanted):
            return service.smctl("scale", wanted, timeout=60).returncode == 0
        if not expect(lab.wait_until(scaled, 20), f"scale {wanted} can be done after it", service.log()[-2000:]):
            break
        status = service.status() or {}
        owned = [replica["shards"] for replica in status.get("replicas", []) if replica["state"] == "ready"]
        if not expect(len(owned) == wanted and sum(owned) == 16384, f"{wanted} replicas own all shards", status):
            break
    service.stop(30)
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        live.expect_report(json.load(file), moves=True)
    expect(service.process.returncode == 0, f"SIGTERM ends it with status {service.process.returncode}",
           service.log()[-2000:])


def main():
    given = live.arguments(__doc__)
    print(f"seed {SEED}: SM_SEED={SEED} to repeat")
    live.enter_or_skip()
    rng = random.Random(SEED)
    for _ in range(4 if FULL else 1):
        by_events(given.build, rng)
        from_outside(given.build, rng, 20 if FULL else 4)
    live.expect_alone()
    live.finish()


main()
