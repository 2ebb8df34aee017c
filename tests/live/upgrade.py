#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A running service is upgraded to another build of its middlebox, whose records are others, and back; new builds that
fail in every way are taken back by themselves. What leaves is what one unsplit instance would have sent.

SM_FULL=1 upgrades more often.
"""

import filecmp
import json
import os
import socket
import subprocess

import live
import msgpack
from live import expect, lab

FULL = os.environ.get("SM_FULL", "") not in ("", "0")
SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
PACKETS = 2300

SERVICE = """service: upgrade
middlebox: {{exec: {exec}, args: [{args}]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{pcap: {input}, pace: {pps}pps}}
  out: {{pcap: out.pcap, order: arrival}}
limits: {{unresponsive: 2s}}
"""


def service_of(build, pps, *arguments):
    programs = [os.path.join(build, "tests", "upgrade", f"versions-{version}") for version in (1, 2)]
    service = lab.Service(build)
    service.write("service.yaml", SERVICE.format(exec=programs[0], args=", ".join(arguments), input=SAMPLE,
                                                   pps=pps))
    for program, out in zip(programs, ("alone.pcap", "alone2.pcap")):
        done = subprocess.run([program, "--in", SAMPLE, "--out", out, *arguments], cwd=service.folder, timeout=120, check=False)
        expect(done.returncode == 0, f"{os.path.basename(program)} alone", done)
    expect(filecmp.cmp(service.path("alone.pcap"), service.path("alone2.pcap"), shallow=False),
           "both versions send the same")
    return service, programs


def expect_unharmed(service, report, status, wanted):
    expect(status == wanted, f"status {status}", service.log()[-3000:])
    live.expect_no_sanitizer(service.log())
    if report:
        live.expect_report(report, moves=True)
    expect(filecmp.cmp(service.path("out.pcap"), service.path("alone.pcap"), shallow=False),
           "the output is the standalone one")


def by_events(build):
    print("-- over a capture, by events")
    service, (one, two) = service_of(build, 4000)
    lines = [f"packet=300 upgrade --exec {two} --trial 200ms", "packet=700 kill any", "packet=900 scale 3",
             f"packet=1100 upgrade --exec {one} --trial 0s", "packet=1400 scale 2",
             f"packet=1500 upgrade --exec {two} --trial 1ms --args",
             f"packet=1700 upgrade --exec {one} --no-rollback", f"packet=1900 upgrade --trial 10ms --exec {one}"]
    service.write("events", "\n".join(lines) + "\n")
    done = subprocess.run(service.program("smctl", "run", "service.yaml", "--events", "events", "--report",
                                          "report.json"), cwd=service.folder, env=service.environment, timeout=120,
                          capture_output=True, text=True, check=False)
    service.write("log", done.stderr)
    expect(done.returncode == 0, f"status {done.returncode}", done.stderr[-3000:])
    live.expect_no_sanitizer(done.stderr)
    expect(filecmp.cmp(service.path("out.pcap"), service.path("alone.pcap"), shallow=False),
           "the output is the standalone one")
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=True)
    expect([event["result"] for event in report["events"]] == ["done"] * len(lines), "all events done",
           report["events"])


def expect_refused(service, what, says, *arguments, status=1):
    before = [(replica["name"], replica["exec"]) for replica in service.status()["replicas"]]
    done = service.smctl("upgrade", *arguments, timeout=60)
    expect(done.returncode == status and says in done.stderr and done.stderr.count("\n") == 1,
           f"{what}: {done.stderr.strip()}", done, service.log()[-2000:])
    after = [(replica["name"], replica["exec"]) for replica in service.status()["replicas"]]
    expect(before == after, "the service is as it was", before, after)


def on_trial(service, one, two):
    """Until the trial is over nothing else begins, and both versions are there."""
    upgrade = subprocess.Popen(service.program("smctl", "upgrade", "--exec", two, "--trial", "1.5s"), cwd=service.folder,
                               env=service.environment, stdout=subprocess.PIPE, text=True)

    def trial():
        status = service.status() or {}
        return status if status.get("stage") == "trial" else None
    status = lab.wait_until(trial, 30) or {"replicas": []}
    shards = {program: sorted(replica["shards"] > 0 for replica in status["replicas"] if replica["exec"] == program)
              for program in (one, two)}
    expect(shards == {one: [False] * 2, two: [True] * 2}, "on trial: the new replicas have all, the old ones are there", shards)
    expect(classes_of(service) == [("counts", 1)], "the service's classes are the old version's", classes_of(service))
    busy = service.smctl("scale", "1")
    expect(busy.returncode == 4, f"on trial: {busy.stderr.strip()}")
    said = upgrade.communicate(timeout=60)[0]
    expect(upgrade.returncode == 0, said.strip(), service.log()[-2000:])
    expect(classes_of(service) == [("counts", 2)], "now they are the new one's, each once", classes_of(service))


def classes_of(service):
    """What the switch says of classes: name and version."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as switch:
        switch.connect(os.path.join(service.environment["SPLITMERGE_RUN"], "upgrade", "switch.sock"))
        for number, (method, params) in enumerate((("hello", {"version": 1}), ("classes", {}))):
            switch.sendall(msgpack.packb([0, number, method, [params]]))
        unpacker = msgpack.Unpacker(raw=False)
        while True:
            unpacker.feed(switch.recv(65536))
            for message in unpacker:
                if message[:2] == [1, 1]:
                    return [(cls["name"], cls["version"]) for cls in message[3]["classes"]]


def by_hand(build):
    print("-- by hand: what fails is taken back")
    service, (one, two) = service_of(build, 100)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    service.write("text", "no program\n")
    expect_refused(service, "no such file", "No such file", "--exec", service.path("none"))
    expect_refused(service, "not executable", "no executable file", "--exec", service.path("text"))
    expect_refused(service, "a folder", "no executable file", "--exec", service.folder)
    expect_refused(service, "not a middlebox", "before it was ready", "--exec", "/bin/true")
    expect_refused(service, "no program", "expected: smctl upgrade --exec", status=2)
    expect_refused(service, "fails at the start", "exited with status 4", "--exec", two, "--args", "--fail", "start")
    expect_refused(service, "registers what is impossible", "keys cannot change", "--exec", two, "--args", "--fail",
                   "register")
    expect_refused(service, "exits with its first flow", "the old one goes on", "--exec", two, "--args", "--fail",
                   "exit")
    expect_refused(service, "hangs with its first flow", "the old one goes on", "--exec", two, "--args", "--fail",
                   "hang")
    expect_refused(service, "fails when all has moved", "exited with status 3; the old one goes on", "--exec", two, "--args",
                   "--fail", "late")
    expect_refused(service, "no time", "--trial: expected a time", "--exec", two, "--trial", "soon", status=2)
    expect_refused(service, "too long", "--trial: expected a time", "--exec", two, "--trial", "2h", status=2)
    expect_refused(service, "on trial without a way back", "expected: smctl upgrade", "--exec", two, "--trial", "1s",
                   "--no-rollback", status=2)
    on_trial(service, one, two)
    runs = [replica["exec"] for replica in service.status()["replicas"]]
    expect(runs == [two] * 2, "two replicas of the new version", runs)
    done = service.smctl("scale", "3", timeout=60)
    runs = [replica["exec"] for replica in service.status()["replicas"]]
    expect(done.returncode == 0 and runs == [two] * 3, "whoever comes later is of it too", done, runs)
    service.process.wait(60)
    with open(service.path("report.json"), encoding="utf-8") as file:
        expect_unharmed(service, json.load(file), service.process.returncode, 0)


def by_callback(build):
    """What only the new version can bring back it does, as it fails; forward only, a failure is tried again."""
    print("-- records that fields do not say")
    service, (one, two) = service_of(build, 110, "--lists", "yes")
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    expect_refused(service, "brought back by one that lives", "exited with status 3; the old one goes on", "--exec", two,
                   "--args", "--lists", "yes", "--fail", "late")
    # What is heard first of a death is its exit or, from the switch, that its shards cannot move.
    expect_refused(service, "none lives for long enough", "; both versions go on", "--exec", two,
                   "--args", "--lists", "yes", "--fail", "exit")
    expect_refused(service, "forward, and nothing has moved", "the old one goes on", "--exec", two, "--no-rollback", "--args",
                   "--lists", "yes", "--fail", "start")
    done = service.smctl("upgrade", "--exec", two, "--no-rollback", timeout=60)
    expect(done.returncode == 0, f"forward: {done.stdout.strip()}", done, service.log()[-2000:])
    expect_refused(service, "to an older one", "is older than the service's", "--exec", one)
    service.process.wait(60)
    with open(service.path("report.json"), encoding="utf-8") as file:
        expect_unharmed(service, json.load(file), service.process.returncode, 0)


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    for _ in range(5 if FULL else 1):
        by_events(given.build)
    by_hand(given.build)
    by_callback(given.build)
    live.expect_alone()
    live.finish()


main()
