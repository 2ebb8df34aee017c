#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Replicas killed by SIGKILL, as separate processes, at random: at gates of an events file, from outside at any instant
of a run over a capture, and under live traffic. What leaves must be what an unkilled, unsplit instance would have sent.

SM_SEED fixes the random numbers (not the kernel's timing); SM_FULL=1 kills 200 and more instead of 30 and more.
"""

import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import live
from live import expect, lab

FULL = os.environ.get("SM_FULL", "") not in ("", "0")
SEED = int(os.environ.get("SM_SEED", "0"), 0) or random.SystemRandom().randrange(1, 1 << 31)
SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
TRACES = os.environ.get("SM_TRACES") or os.path.join(live.SAMPLES, "..", "..", "..", "shared", "traces")
MIX = os.path.abspath(os.path.join(TRACES, "mix-ndpi.pcap"))

# Only limits that are one bucket a flow or pair: the output is a function of the input.
POLICY = """limits:
  - {name: udp, match: udp, per: flow, rate: 64kbit, burst: 4KiB}
  - {name: pair, per: host-pair, rate: 1Mbit, burst: 32KiB}
"""
# One bucket for all replicas: what passes depends on who comes first, and its sum does not.
SHARED = {"name": "all", "per": "all", "rate": "200kbit", "burst": "6KiB"}
CONSERVED = os.path.abspath(os.path.join(live.SAMPLES, "..", "oracle", "conserved.py"))
CAPTURE = """service: kill
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: {start}, min: 1, max: 5}}
ports:
  in: {{pcap: {input}{pace}}}
  out: {{pcap: out.pcap, order: arrival}}
"""
LIVE = """service: kill
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 3, min: 1, max: 4}
ports:
  in: {interface: left}
  out: {interface: right}
limits: {flows: 64k, memory: 256MiB}
"""
LIVE_POLICY = 'limits: [{name: tcp, match: "tcp port 5201", per: flow, rate: 20Mbit, burst: 512KiB}]\n'

kills = 0  # in all


def packets_of(capture):
    text = subprocess.run(["capinfos", "-cM", capture], capture_output=True, text=True, check=True).stdout
    return int(text.rpartition(":")[2])


def how(rng):
    """Shards are handed over, or copied."""
    return rng.choice(["", " --copy"])


def random_events(rng, packets, count):
    """`count` kills at random packets, between random scalings."""
    lines = []
    for number in sorted(rng.sample(range(10, packets), min(packets - 10, 2 * count))):
        lines.append(f"packet={number} kill any" if len(lines) % 2 else f"packet={number} scale {rng.randint(1, 5)}{how(rng)}")
    return lines


class Trial:
    """A run of the service over a capture, and what the standalone middlebox makes of the same."""

    def __init__(self, build, capture, policy=POLICY):
        self.service, self.capture = lab.Service(build), capture
        self.service.write("policy.yaml", policy)

    def __enter__(self):
        done = subprocess.run(self.service.program("sm-ratelimiter", "--policy", "policy.yaml", "--in", self.capture, "--out",
                                                   "alone.pcap"), cwd=self.service.folder, timeout=120, check=False)
        expect(done.returncode == 0, f"{os.path.basename(self.capture)} alone")
        return self

    def __exit__(self, *_):
        if self.service.process and self.service.process.poll() is None:
            self.service.stop()
        shutil.rmtree(self.service.folder)

    def start(self, start, pace, *options):
        text = CAPTURE.format(start=start, input=self.capture, pace=f", pace: {pace}" if pace else "")
        self.service.write("service.yaml", text)
        self.service.start("service.yaml", "--report", "report.json", *options)

    def end(self, least, seconds=240):
        """The end of the run: all promises, and at least so many replicas that died by SIGKILL."""
        global kills
        try:
            code = self.service.process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = f"no end within {seconds} s"
        fine = expect(code == 0, f"status {code}", self.service.log()[-3000:])
        try:
            with open(self.service.path("report.json"), encoding="utf-8") as file:
                report = json.load(file)
        except (OSError, ValueError) as reason:
            return expect(False, f"there is a report: {reason}")
        live.expect_report(report, moves=False)
        killed = sum(replica["exit"] == "was killed by signal 9" for replica in report["replicas"])
        kills += killed
        done = sum(event["result"] == "done" for event in report["events"])
        fine &= expect(killed >= least, f"{killed} replicas were killed, {done} events done, "
                       f"{report['moves']['completed']} moves, {report['deaths']['given_back']} debits given back, "
                       f"{report['seconds']:.1f} s", report["replicas"])
        live.expect_no_sanitizer(self.service.log())
        return fine

    def check(self, least, seconds=240):
        """end(), and the output is that of an unsplit instance."""
        fine = self.end(least, seconds)
        same = fine and filecmp.cmp(self.service.path("out.pcap"), self.service.path("alone.pcap"), shallow=False)
        expect(same, "the output is the standalone one")
        return same

    def conserve(self, limit):
        """Over every interval no more than the limit passed; and in all nearly what one unsplit bucket passes."""
        done = subprocess.run([sys.executable, CONSERVED, json.dumps([limit]), self.capture, self.service.path("out.pcap")],
                              capture_output=True, text=True, check=False)
        return expect(done.returncode == 0, f"one limit for all: {done.stdout.strip()}", done.stderr)


def at_gates(build, rng, capture, count):
    print(f"-- {os.path.basename(capture)}: {count} kills from an events file")
    with Trial(build, capture) as trial:
        lines = random_events(rng, packets_of(capture), count)
        trial.service.write("events", "\n".join(lines) + "\n")
        trial.start(rng.randint(1, 4), "", "--events", "events")
        if not trial.check(sum("kill" in line for line in lines)):
            print("\n".join(lines))


def shared_limit(build, rng, capture, count):
    """A bucket that all replicas take from: what the dead took, and did not commit, comes back.

    Read about as fast as it was captured: unpaced, survivors are seconds of packet time ahead before a dead replica's
    packets come to its heir, and a bucket that was full meanwhile has nothing to give for the past.
    """
    print(f"-- {os.path.basename(capture)}: one limit for all, {count} kills")
    policy = "limits: [{" + ", ".join(f"{key}: {value}" for key, value in SHARED.items()) + "}]\n"
    with Trial(build, capture, policy) as trial:
        lines = random_events(rng, packets_of(capture), count)
        trial.service.write("events", "\n".join(lines) + "\n")
        trial.start(rng.randint(2, 4), "2000pps", "--events", "events")
        if not (trial.end(sum("kill" in line for line in lines)) and trial.conserve(SHARED)):
            print("\n".join(lines))


def replicas_of(service):
    """(pid, name) of the replicas that are ready."""
    done = service.smctl("replicas", "--json")
    try:
        return [(replica["pid"], replica["name"]) for replica in json.loads(done.stdout)["replicas"]
                if replica["state"] == "ready"]
    except (ValueError, KeyError):
        return []


def kill_one(rng, service, number=signal.SIGKILL):
    """A random replica dies at once. Returns its name, or None when there was none."""
    found = replicas_of(service)
    if not found:
        return None
    pid, name = rng.choice(found)
    time.sleep(rng.random() * 0.01)
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return None
    return name


def scale_at_random(rng, service, most):
    """It may be refused, or meet a death: all the same."""
    if rng.random() < 0.4:
        service.smctl("scale", rng.randint(1, most), *how(rng).split(), timeout=90)


def check_memory(service):
    """The arena's checker finds nothing, whoever has died. Refused while shards move: then again."""
    for _ in range(100):
        done = service.smctl("check", timeout=90)
        if done.returncode != 4:
            break
        time.sleep(0.1)
    expect(done.returncode == 0 and done.stdout.startswith("0 found"), "smctl check: " + done.stdout.strip(), done.stderr)


def from_outside(build, rng, capture, count, pps):
    print(f"-- {os.path.basename(capture)}: {count} kills from outside, at random instants")
    with Trial(build, capture) as trial:
        trial.start(3, f"{pps}pps")
        if not expect(trial.service.wait_running(60), "the service runs", trial.service.log()):
            return
        done = 0
        while done < count and trial.service.process.poll() is None:
            time.sleep(rng.random() * 0.25)
            done += kill_one(rng, trial.service) is not None
            scale_at_random(rng, trial.service, 5)
        if trial.service.process.poll() is None:
            check_memory(trial.service)
        trial.check(min(done, count) if done else 1)
        expect(done == count, f"{done} kills before the input's end")


def all_at_once(build, rng, capture, pps):
    """Nobody survives: packets wait for the replacements. Replicas that were starting are among the dead."""
    print(f"-- {os.path.basename(capture)}: all replicas at once, three times")
    with Trial(build, capture) as trial:
        trial.start(2, f"{pps}pps")
        if not expect(trial.service.wait_running(60), "the service runs", trial.service.log()):
            return
        for _ in range(3):
            time.sleep(0.2 + rng.random() * 0.4)
            for pid, command in lab.others():
                if "--policy" in command and "smctl" not in command:
                    os.kill(pid, signal.SIGKILL)
            if rng.random() < 0.5:
                trial.service.smctl("scale", rng.randint(1, 3), timeout=90)
        trial.check(3)


def under_traffic(build, rng, count, slow):
    global kills
    print(f"-- live: {count} kills at random instants")
    path = lab.Path()
    service = lab.Service(build, path.middle)
    service.write("policy.yaml", LIVE_POLICY)
    service.write("service.yaml", LIVE)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    server = path.server.start("iperf3", "-s", "-p", 5201, stdout=-3, stderr=-3)
    lab.wait_until(lambda: ":5201" in path.server.run("ss", "-ltn").stdout, 5)
    client = path.client.start("iperf3", "-J", "-c", path.SERVER, "-p", 5201, "-t", max(10, count), "-P", 4, "-b",
                               "1M" if slow else "5M", stdout=subprocess.PIPE)
    probe = lab.Probe(path.client, path.server, path.SERVER, flows=32, rate=200 if slow else 1000)
    time.sleep(1)
    done = 0
    end = time.monotonic() + 6 * count
    while done < count and time.monotonic() < end:
        time.sleep(rng.random() * 0.8)
        done += kill_one(rng, service) is not None
        scale_at_random(rng, service, 4)
    time.sleep(0.5)
    check_memory(service)
    seen = probe.stop()
    kills += done
    expect(done == count, f"{done} replicas were killed", service.log()[-2000:])
    said = client.communicate(timeout=60 + count)[0]
    try:
        result = json.loads(said)
        rate = result["end"]["sum_received"]["bits_per_second"]
        expect("error" not in result and rate > 0, f"iperf3 TCP: {rate / 1e6:.1f} Mbit/s through all of it", said[-500:])
    except (ValueError, KeyError) as reason:
        expect(False, f"iperf3 TCP: {reason}", said[-500:])
    server.terminate()
    server.wait(5)
    code = service.stop()
    expect(code == 0, f"SIGTERM ends the service with status {code}", service.log()[-3000:])
    live.expect_no_sanitizer(service.log())
    try:
        with open(service.path("report.json"), encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError) as reason:
        expect(False, f"there is a report: {reason}", service.log())
        return
    live.expect_report(report, moves=False)
    outside = sum(port["rx_missed"] + port["tx_failed"] for port in report["ports"])
    print(f"     lost by the machine, outside of the service: {outside}")
    expect(seen["sent"] > 100 and seen["lost"] <= outside, f"probe: lost {seen['lost']} of {seen['sent']}, worst "
           f"{seen['worst_ms']} ms", seen, report["packets"])
    expect(seen["reordered"] == 0 and seen["duplicates"] == 0, "probe: none reordered, none twice", seen)


def main():
    given = live.arguments(__doc__)
    print(f"seed {SEED}: SM_SEED={SEED} to repeat")
    live.enter_or_skip()
    rng = random.Random(SEED)
    captures = [SAMPLE] + ([MIX] if os.path.exists(MIX) else [SAMPLE])
    for _ in range(3 if FULL else 1):
        at_gates(given.build, rng, captures[0], 20 if FULL else 8)
        at_gates(given.build, rng, captures[1], 40 if FULL else 12)
        shared_limit(given.build, rng, captures[0], 20 if FULL else 8)
    big = captures[1]
    seconds = 25 if FULL else 8
    from_outside(given.build, rng, big, 25 if FULL else 8, max(50, packets_of(big) // seconds))
    all_at_once(given.build, rng, big, max(50, packets_of(big) // 6))
    under_traffic(given.build, rng, 30 if FULL else 8, given.slow)
    expect(kills >= (200 if FULL else 30), f"{kills} kills in all")
    live.expect_alone()
    live.finish()


main()
