#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Upgrades, forward and back, in the midst of which something is killed by SIGKILL at a random instant: the
orchestrator, old or new replicas, then also the switch. Each time the service ends up with as many replicas as before,
all of one version; where the switch lived, what leaves is what one unsplit instance would have sent.

SM_SEED fixes the random numbers (not the kernel's timing); SM_FULL=1 upgrades more often.
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

SERVICE = """service: upgrade
middlebox: {{exec: {exec}}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{pcap: {input}, pace: {pps}pps}}
  out: {{pcap: out.pcap, order: arrival}}
"""


def processes(*names):
    """Pids of the programs of these names."""
    return [pid for pid, command in lab.others() if os.path.basename(command.split(" ")[0]) in names]


def kill(rng, *names):
    """One of the processes of these names dies now; False: there was none."""
    found = processes(*names)
    try:
        os.kill(rng.choice(found), signal.SIGKILL)
    except (ProcessLookupError, IndexError):
        return False
    return True


def settled(service):
    """The version that both replicas run once nothing is under way; else None."""
    status = service.status()
    if not status or status["operation"] is not None or len(status["replicas"]) != 2:
        return None
    if sum(replica["shards"] for replica in status["replicas"] if replica["state"] == "ready") != 16384:
        return None
    try:
        names = {os.path.basename(os.readlink(f"/proc/{replica['pid']}/exe")) for replica in status["replicas"]}
    except OSError:
        return None
    return names.pop() if len(names) == 1 else None


def storm(build, rng, count, victims, pps):
    """Upgrades until `count` of them were struck, or the input is at its end. The service, and how many upgrades
    succeeded; None: it did not recover."""
    programs = {f"versions-{version}": os.path.join(build, "tests", "upgrade", f"versions-{version}") for version in (1, 2)}
    service = lab.Service(build)
    service.write("service.yaml", SERVICE.format(exec=programs["versions-1"], input=SAMPLE, pps=pps))
    subprocess.run([programs["versions-1"], "--in", SAMPLE, "--out", "alone.pcap"], cwd=service.folder, timeout=120, check=True)
    service.start("service.yaml", "--report", "report.json")
    expect(service.wait_running(60), "the service runs", service.log())
    runs, struck, done = "versions-1", 0, 0
    for _ in range(2 * count):
        new = "versions-2" if runs == "versions-1" else "versions-1"
        way = rng.choice([["--no-rollback"], ["--trial", "0s"], ["--trial", f"{rng.randint(1, 200)}ms"]])
        victim = rng.choice(victims)
        asked = subprocess.Popen(service.program("smctl", "upgrade", "--exec", programs[new], *way), cwd=service.folder,
                                 env=service.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.25)
        hit = kill(rng, *{"old": [runs], "new": [new]}.get(victim, [victim]))
        if hit and rng.random() < 0.2:
            hit = kill(rng, "versions-1", "versions-2")
        try:
            asked.wait(60)
        except subprocess.TimeoutExpired:
            expect(False, f"{runs} to {new} {' '.join(way)}, {victim} {'killed' if hit else 'not there'}: an answer",
                   service.log()[-3000:], service.status())
            return service, None
        struck += hit
        found = lab.wait_until(lambda: settled(service) or service.process.poll() is not None, 30)
        if found is True: # the input is at its end
            break
        if not expect(found, f"{runs} to {new} {' '.join(way)}, {victim} {'killed' if hit else 'not there'}: now {found}",
                      service.log()[-3000:], service.status()):
            return service, None
        done += found == new
        runs = found
        if struck == count:
            break
    expect(struck > count // 2, f"{struck} upgrades were struck, {done} succeeded")
    return service, done


def end_of(service):
    try:
        code = service.process.wait(180)
    except subprocess.TimeoutExpired:
        code = "no end within 180 s"
    expect(code == 0, f"status {code}", service.log()[-3000:])
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=False)
    return report


def main():
    given = live.arguments(__doc__)
    print(f"seed {SEED}: SM_SEED={SEED} to repeat")
    live.enter_or_skip()
    rng = random.Random(SEED)
    print("-- the orchestrator, old and new replicas")
    count = 40 if FULL else 8
    service, done = storm(given.build, rng, count, ["sm-orchestrator", "old", "new"], 27 if FULL else 150)
    if done is not None:
        end_of(service)
        expect(filecmp.cmp(service.path("out.pcap"), service.path("alone.pcap"), shallow=False),
               "the output is the standalone one")
    service.stop()
    print("-- the switch too")
    service, done = storm(given.build, rng, count // 2, ["sm-switch", "sm-switch", "sm-orchestrator", "new"], 50 if FULL else 180)
    if done is not None:
        report = end_of(service)
        expect(set(report["packets"]["dropped"]) <= {"switch_died", "third"} and report["packets"]["in"] == 2300,
               f"what was lost is counted: {report['packets']}", report["deaths"])
    service.stop()
    live.expect_alone()
    live.finish()


main()
