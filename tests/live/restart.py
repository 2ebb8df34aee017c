#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The orchestrator and the switch killed by SIGKILL, again and again: by events, and from outside at any instant, in the
midst of splits and merges, while replicas die too. The service goes on by itself. Where the orchestrator died, what
leaves is what an unkilled, unsplit instance would have sent; where the switch died, that but for packets that the
report counts as lost: none twice, in order, and the state intact.

SM_SEED fixes the random numbers (not the kernel's timing); SM_FULL=1 kills more.
"""

import collections
import filecmp
import json
import mmap
import os
import random
import re
import signal
import subprocess
import time

import live
from live import expect, lab, records

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
    service = service_of(build, 50)  # it does not end before we are through
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
        asked.wait(60)  # a replica that never came is given up after 30 s
        if number == 0:
            seen = service.smctl("status")
            expect(seen.returncode in (0, 1, 3, 4), f"status meanwhile: {seen.returncode} {seen.stderr.strip()}")

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


# ---- the switch ----

OPEN_POLICY = "limits: [{name: open, per: flow, rate: 10Gbit, burst: 1GiB}]\n"
GENERATED = """service: restart
middlebox: {{exec: {counter}}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{generator: {{flows: 200, size: 64, rate: {rate}}}}}
  out: {{discard: true}}
"""
LIVE = """service: restart
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 2, min: 1, max: 4}
ports:
  in: {interface: left}
  out: {interface: right}
limits: {flows: 64k, memory: 64MiB}
"""


def expect_subsequence(out, whole):
    """Every packet of `out` is one of `whole`, in order, and none is there twice."""
    at, misplaced = 0, 0
    for record in out:
        try:
            at = whole.index(record, at) + 1
        except ValueError:
            misplaced += 1
    expect(misplaced == 0, f"{len(out)} of {len(whole)} packets left, in order and none twice", misplaced)


def expect_lost_is_counted(service, report):
    """What is not in the output the report gives as lost with the switch, and nothing else is."""
    if not report:
        return
    live.expect_report(report, moves=False)
    (_, out), (_, whole) = records(service.path("out.pcap")), records(SAMPLE)
    expect_subsequence(out, whole)
    lost = report["packets"]["dropped"]
    expect(report["packets"]["in"] == len(whole) and report["packets"]["out"] == len(out) and
           set(lost) <= {"switch_died"}, f"the report: {report['packets']}", report["deaths"])


def switch_by_events(build, rng):
    print("-- the switch, by events, between scalings and other deaths")
    service = service_of(build, 3000)
    service.write("policy.yaml", OPEN_POLICY)
    lines = []
    for at in sorted(rng.sample(range(10, PACKETS - 100), 14)):
        verb = rng.choice(["kill switch", "kill switch", f"scale {rng.randint(1, 5)}", "kill any", "kill orchestrator"])
        lines.append(f"packet={at} {verb}")
    lines.append(f"packet={PACKETS - 50} kill switch")
    service.write("events", "\n".join(lines) + "\n")
    service.start("service.yaml", "--events", "events", "--report", "report.json")
    report = report_of(service)
    expect_lost_is_counted(service, report)
    if report:
        wanted = sum("switch" in line for line in lines)
        expect(report["deaths"]["switch"] == wanted, f"{wanted} deaths of the switch", report["deaths"])
        expect(all(event["result"] == "done" for event in report["events"]), "all events done", report["events"])


def switch_between_gates(build):
    """The switch dies at an event's gate, before that has been opened: the next event waits for its own place."""
    print("-- the switch, at a gate")
    for _ in range(4):
        service = service_of(build, 1000000)
        service.write("policy.yaml", OPEN_POLICY)
        service.write("events", "packet=300 kill switch\npacket=900 kill switch\npacket=1500 scale 4\n")
        service.start("service.yaml", "--events", "events", "--report", "report.json")
        report = report_of(service)
        expect_lost_is_counted(service, report)
        if report:
            expect(all(event["result"] == "done" for event in report["events"]), "all events done", report["events"])


def switch_from_outside(build, rng, count):
    print("-- the switch, at random instants of a run over a capture")
    service = service_of(build, 400)
    service.write("policy.yaml", OPEN_POLICY)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    killed = 0
    for _ in range(count):
        time.sleep(rng.random() * 0.6)
        killed += kill("sm-switch", rng)
        if rng.random() < 0.3:
            kill("sm-orchestrator", rng)
        if rng.random() < 0.3:
            kill("sm-ratelimiter", rng)
    report = report_of(service)
    expect_lost_is_counted(service, report)
    if report:
        # One that dies before it has gone on has not counted itself.
        expect(0 < report["deaths"]["switch"] <= killed, f"{report['deaths']['switch']} of {killed} deaths of the switch")


def counts_of(service):
    """Packets by flow, as the middlebox has counted them; None while nobody answers for all."""
    done = service.smctl("flows", "--json", "--limit", 1000)
    try:
        flows = {json.dumps(flow["key"], sort_keys=True): flow["state"]["packets"]["value"]
                 for flow in json.loads(done.stdout)["flows"]}
        return flows if len(flows) == 200 else None  # a list made while shards move may lack some
    except (ValueError, KeyError, TypeError):
        return None


def ended_of(service):
    """Likewise, of those flows that the middlebox has told, and forgotten, as idle: where a takeover takes a second."""
    counts = collections.Counter()
    for line in service.log().splitlines():
        found = re.fullmatch(r"17 (\S+) (\d+) (\S+) (\d+) (\d+) packets \d+ bytes", line)
        if found:
            a, a_port, b, b_port, packets = found.groups()
            counts[json.dumps(f"udp {a}:{a_port} {b}:{b_port}")] += int(packets)
    return counts


def state_survives(build, rng, count, rate):
    print("-- the switch, under a load of many flows: what was counted of each stays")
    service = lab.Service(build)
    counter = os.path.join(build, "middleboxes/counter/counter")
    service.write("service.yaml", GENERATED.format(counter=counter, rate=rate))
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    time.sleep(0.3)
    for _ in range(count):
        ended = ended_of(service)
        before = lab.wait_until(lambda: counts_of(service), 10)
        kill("sm-switch", rng)
        after = lab.wait_until(lambda: counts_of(service), 10)
        if not expect(before and after, "all flows are counted", before and len(before), after and len(after)):
            break
        told = ended_of(service) - ended
        back = [key for key in before if after.get(key, 0) + told[key] < before[key]]
        expect(not back, f"no count went back ({sum(before.values())} packets, then {sum(after.values())})", back[:3])

        def goes_on(then=sum(after.values())):
            counts = counts_of(service)
            return counts and sum(counts.values()) > then + 1000
        expect(lab.wait_until(goes_on, 10), "packets are counted again", service.log()[-2000:])
    counted = sum((counts_of(service) or {}).values())
    code = service.stop(30)
    expect(code == 0, f"SIGTERM ends it with status {code}", service.log()[-2000:])
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=False)
    expect(counted <= report["packets"]["in"], f"{counted} counted of {report['packets']}")
    expect(report["deaths"]["switch"] == count, f"{count} deaths of the switch", report["deaths"])


STATE_MAGIC = (0x31657461745373).to_bytes(8, "little")


def memory_of(pid):
    """The arena that a switch has, to be written to."""
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):
        if os.readlink(f"{folder}/{entry}").startswith("/memfd:splitmerge"):
            return os.open(f"{folder}/{entry}", os.O_RDWR)
    return None


def damage_is_refused(build):
    print("-- a switch that leaves damaged memory")
    service = lab.Service(build)
    counter = os.path.join(build, "middleboxes/counter/counter")
    service.write("service.yaml", GENERATED.format(counter=counter, rate="2kpps") +
                  "limits: {flows: 10k, memory: 16MiB}\n")
    service.start("service.yaml")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    pid = processes("sm-switch")[0]
    fd = memory_of(pid)
    with mmap.mmap(fd, 0) as memory:
        at = memory.find(STATE_MAGIC)
        expect(at > 0, "its state is found")
        memory[at:at + 8] = bytes(8)
    os.close(fd)
    os.kill(pid, signal.SIGKILL)
    try:
        code = service.process.wait(20)
    except subprocess.TimeoutExpired:
        code = "no end"
    expect(code == 1 and "the arena of service restart is damaged: not a formatted state" in service.log(),
           f"refused with one line, status {code}", service.log()[-2000:])
    service.stop()


def nonsense_is_refused(build):
    """What is handed over is no arena at all."""
    service = lab.Service(build)
    counter = os.path.join(build, "middleboxes/counter/counter")
    service.write("service.yaml", GENERATED.format(counter=counter, rate="2kpps"))
    fd = os.memfd_create("nonsense")
    os.write(fd, bytes(range(256)) * 64)
    sw = service.program("sm-switch")[0]
    done = subprocess.run(["sh", "-c", f"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=arena exec {sw} service.yaml 3<&{fd}"],
                          pass_fds=(fd,), cwd=service.folder, env=service.environment, capture_output=True, text=True,
                          timeout=20, check=False)
    os.close(fd)
    expect(done.returncode == 1 and "what was left behind is not an arena" in done.stderr, "nonsense is refused",
           done.returncode, done.stderr)


def under_traffic(build, rng, count, path):
    print("-- live: switch, orchestrator and replicas at random instants")
    service = lab.Service(build, path.middle)
    service.write("policy.yaml", OPEN_POLICY)
    service.write("service.yaml", LIVE)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    probe = lab.Probe(path.client, path.server, path.SERVER, flows=32, rate=500)
    time.sleep(0.5)
    for _ in range(count):
        kill(rng.choice(["sm-switch", "sm-switch", "sm-orchestrator", "sm-ratelimiter"]), rng)
        time.sleep(rng.random())
        seen = probe.counts()["received"]
        expect(lab.wait_until(lambda then=seen: probe.counts()["received"] > then, 10), "packets flow",
               service.log()[-2000:])
    time.sleep(0.5)
    seen = probe.stop()
    code = service.stop(30)
    expect(code == 0, f"SIGTERM ends it with status {code}", service.log()[-2000:])
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=False)
    # What comes while there is no switch has never entered, and nobody counts it.
    expect(seen["reordered"] == 0 and seen["duplicates"] == 0, f"none twice, none out of order: {seen}", seen)
    print(f"     {report['packets']}, deaths {report['deaths']}")


def main():
    given = live.arguments(__doc__)
    print(f"seed {SEED}: SM_SEED={SEED} to repeat")
    live.enter_or_skip()
    rng = random.Random(SEED)
    path = lab.Path()
    for _ in range(4 if FULL else 1):
        by_events(given.build, rng)
        from_outside(given.build, rng, 20 if FULL else 4)
        switch_by_events(given.build, rng)
        switch_between_gates(given.build)
        switch_from_outside(given.build, rng, 20 if FULL else 6)
        state_survives(given.build, rng, 20 if FULL else 3, "2kpps" if given.slow else "50kpps")
        damage_is_refused(given.build)
        nonsense_is_refused(given.build)
        under_traffic(given.build, rng, 30 if FULL else 6, path)
    live.expect_alone()
    live.finish()


main()
