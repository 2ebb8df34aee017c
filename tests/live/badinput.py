#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a user can get wrong: one clear line on stderr, the documented exit status, nothing left running, and no
half-written output under the name of a whole one."""

import os
import re
import shutil
import signal
import struct
import subprocess
import time

import live
from live import expect, lab

SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))
POLICY = "limits:\n  - {name: flow, per: flow, rate: 20kbit, burst: 1KiB}\n"
PACED = "pace: 500pps"  # slow enough to meet it alive


def service_text(name="bad", exec="sm-ratelimiter", args="[--policy, policy.yaml]", input=f"pcap: {SAMPLE}",
                 output="pcap: out.pcap", more=""):
    return (f"service: {name}\nmiddlebox: {{exec: {exec}, args: {args}}}\nreplicas: {{start: 1, min: 1, max: 3}}\n"
            f"ports:\n  in: {{{input}}}\n  out: {{{output}}}\n{more}")


class Case:
    """A folder of its own for one mistake, and what must be true afterwards."""

    def __init__(self, build, what):
        self.what = what
        self.service = lab.Service(build)
        self.service.write("policy.yaml", POLICY)

    def __enter__(self):
        print(f"-- {self.what}")
        return self

    def __exit__(self, *_):
        left = lab.wait_until(lambda: not lab.others(), 5) or lab.others()
        if not expect(left is True, "nothing is left running", left):
            for pid, _ in left:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.service.folder)

    def exists(self, name):
        return os.path.exists(self.service.path(name))

    def run(self, *command, prefix=()):
        try:
            return subprocess.run([*prefix, *self.service.program(*command)], cwd=self.service.folder, timeout=60,
                                  env=self.service.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  check=False)
        except subprocess.TimeoutExpired as late:
            return subprocess.CompletedProcess(command, "no end", "", f"{late.stderr}")

    def refused(self, status, pattern, *command, prefix=(), lines=1):
        """Runs a command that must fail so: that exit status, and that many lines, one of which matches."""
        done = self.run(*command, prefix=prefix)
        said = done.stderr.strip().splitlines()
        fine = done.returncode == status and len(said) == lines and any(re.search(pattern, line) for line in said)
        expect(fine, f"{status}: {said[0] if said else '(silence)'}",
               f"expected status {status} and {lines} line(s) with '{pattern}', got status {done.returncode}:", *said)
        return done

    def service_refused(self, status, pattern, text=None, *options, lines=1, prefix=()):
        """The same with `smctl run`, which must not leave an output that looks whole."""
        if text is not None:
            self.service.write("service.yaml", text)
        self.refused(status, pattern, "smctl", "run", "service.yaml", *options, lines=lines, prefix=prefix)
        expect(not self.exists("out.pcap"), "no out.pcap")

    def started(self, text):
        self.service.write("service.yaml", text)
        self.service.start("service.yaml", "--report", "report.json")
        return expect(self.service.wait_running(60), "the service runs", self.service.log())


def service_files(build):
    with Case(build, "service files") as case:
        case.refused(2, r"nosuch\.yaml", "smctl", "run", "nosuch.yaml")
        case.service_refused(2, r"service\.yaml:\d+.*replcas", service_text().replace("replicas:", "replcas:"))
        case.service_refused(2, r"service\.yaml:\d+.*max", service_text().replace("max: 3", "max: many"))
        case.service_refused(2, r"service\.yaml:\d+", service_text().replace("start: 1", "start: 9"))
        case.service_refused(2, r"service\.yaml:\d+", "service: [\n")
    with Case(build, "policies") as case:
        case.service.write("policy.yaml", "limits:\n  - {name: a, per: flow, rate: 1Mbit, bursts: 1KiB}\n")
        case.refused(2, r"policy\.yaml:2.*bursts", "sm-ratelimiter", "--policy", "policy.yaml", "--in", SAMPLE, "--out", "out.pcap")
        expect(not case.exists("out.pcap"), "no out.pcap")
        case.service.write("policy.yaml", "limits:\n  - {name: a, match: 'tcp prot 80', rate: 1Mbit, burst: 1KiB}\n")
        case.refused(2, r"policy\.yaml:2", "sm-ratelimiter", "--policy", "policy.yaml", "--in", SAMPLE, "--out", "out.pcap")
        case.refused(2, r"none\.yaml", "sm-ratelimiter", "--policy", "none.yaml", "--in", SAMPLE)


def interfaces(build, real_root):
    missing = "interface: nosuch0"
    alone = ("sm-ratelimiter", "--policy", "policy.yaml", "--in", "interface:nosuch0", "--out", "interface:lo")
    with Case(build, "an interface that does not exist") as case:
        case.refused(1, "nosuch0.*no such interface", *alone)
        case.service_refused(1, "nosuch0.*no such interface", service_text(input=missing, output=missing))
        case.service_refused(1, "nosuch0.*no such interface", service_text(input="interface: lo", output=missing))
    if not shutil.which("setpriv"):
        print("-- no permission: not tried, there is no setpriv")
        return
    # CAP_NET_RAW is what counts, whoever one is.
    prefixes = [("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", "--")]
    if real_root:
        prefixes.append(("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"))
    for prefix in prefixes:
        with Case(build, f"no permission ({prefix[1]})") as case:
            if prefix[1] == "--reuid":
                os.chmod(case.service.folder, 0o777)
                os.chmod(case.service.path("policy.yaml"), 0o644)
                if subprocess.run([*prefix, *case.service.program("smctl", "--version")], capture_output=True,
                                  check=False).returncode != 0:
                    print("     not tried: nobody may not even run the programs")
                    continue
            case.refused(1, "lo: no permission", *alone[:-3], "interface:lo", prefix=prefix)
            case.service_refused(1, "lo: no permission", service_text(input="interface: lo", output="interface: lo"),
                                 prefix=prefix)


def captures(build):
    alone = ("sm-ratelimiter", "--policy", "policy.yaml")
    with Case(build, "captures that cannot be read") as case:
        case.service.write("garbage.pcap", "This is not a capture, whatever its name says.")
        case.service.write("empty.pcap", "")
        os.mkdir(case.service.path("folder.pcap"))
        for name in ("nosuch.pcap", "garbage.pcap", "empty.pcap", "folder.pcap"):
            case.refused(1, name, *alone, "--in", name, "--out", "out.pcap")
            expect(not case.exists("out.pcap"), "no out.pcap")
            case.service_refused(1, name, service_text(input=f"pcap: {name}"))
        case.refused(1, "nowhere", *alone, "--in", SAMPLE, "--out", "nowhere/out.pcap")
        case.service_refused(1, "nowhere", service_text(output="pcap: nowhere/out.pcap"))
    with Case(build, "a truncated capture") as case:
        with open(SAMPLE, "rb") as whole:
            data = whole.read()
        size, at, packets = 60000, 24, 0
        while at + 16 <= size:
            at += 16 + struct.unpack_from("<I", data, at + 8)[0]
            packets += at <= size
        with open(case.service.path("cut.pcap"), "wb") as file:
            file.write(data[:size])
        with open(case.service.path("policy.yaml"), "w", encoding="ascii") as file:
            file.write("limits: [{name: none, per: flow, rate: 100Gbit, burst: 1MiB}]\n")
        case.refused(1, "cut.pcap", *alone, "--in", "cut.pcap", "--out", "one.pcap")
        expect(not case.exists("one.pcap") and case.exists("one.pcap.partial"), "one.pcap.partial and no one.pcap")
        case.service_refused(1, "cut.pcap", service_text(input="pcap: cut.pcap"), "--report", "report.json")
        expect(case.exists("out.pcap.partial"), "out.pcap.partial")
        for name in ("one.pcap.partial", "out.pcap.partial"):
            found = at = 0
            if case.exists(name):
                with open(case.service.path(name), "rb") as file:
                    data = file.read()
                at = 24
                while at + 16 <= len(data):
                    at += 16 + struct.unpack_from("<I", data, at + 8)[0]
                    found += 1
                found = found if at == len(data) else -1
            expect(found == packets, f"{name} has the {packets} whole packets", found)


def middleboxes(build):
    for exec, args, pattern in (("/bin/false", "[]", r"exited|status 1"), ("/bin/true", "[]", r"exited|status 0|ready"),
                                ("no-such-program", "[]", "no-such-program"),
                                ("sm-ratelimiter", "[--policy, none.yaml]", r"none\.yaml|exited")):
        with Case(build, f"a middlebox that does not start: {exec} {args}") as case:
            # What the middlebox itself says is a line of its own.
            case.service_refused(1, pattern, service_text(exec=exec, args=args), lines=2 if "none" in args else 1)
    with Case(build, "replicas that register different classes") as case:
        if case.started(service_text(input=f"pcap: {SAMPLE}, {PACED}")):
            case.service.write("policy.yaml", "limits:\n  - {name: other, per: source, rate: 1Mbit, burst: 4KiB}\n")
            case.refused(1, "refused: .*other replicas registered", "smctl", "scale", "2")
            status = case.service.status()
            expect(status and status["state"] == "running", "the service goes on", status)
            case.service.stop()


def events(build):
    good = "".join(f"packet={n} scale {n % 3 + 1}\n" for n in range(1, 7))
    with Case(build, "events") as case:
        case.service.write("events", good + "packet=many scale two\n")
        case.service_refused(2, r"events:7:", service_text(), "--events", "events", "--report", "report.json")
        expect(not case.exists("report.json"), "no report.json")
        expect(not case.exists("out.pcap.partial"), "nothing had begun")
        case.service.write("events", good + "time=1s explode r1\n")
        case.service_refused(2, r"events:7:.*explode", None, "--events", "events")
        case.service_refused(2, "none", None, "--events", "none")
    with Case(build, "an event that is not reached") as case:
        case.service.write("service.yaml", service_text())
        case.service.write("events", "packet=100 scale 2\npacket=99999999 scale 3\n")
        case.refused(1, "line 2", "smctl", "run", "service.yaml", "--events", "events")
        expect(case.exists("out.pcap"), "the output is whole nevertheless")
    with Case(build, "an event that is refused") as case:
        case.service.write("service.yaml", service_text())
        case.service.write("events", "packet=100 scale 7\npacket=200 merge r9 --into r1\n")
        done = case.run("smctl", "run", "service.yaml", "--events", "events")
        expect(done.returncode == 1 and "line 1" in done.stderr and "line 2" in done.stderr,
               f"1: {done.stderr.strip()}", done.returncode)


def commands(build):
    with Case(build, "commands without a service") as case:
        case.refused(3, "no service|not running|runs", "smctl", "status")
        case.refused(3, "nosuch", "smctl", "--service", "nosuch", "scale", "2")
        case.refused(2, "scael", "smctl", "scael", "2")
        case.refused(2, "scale", "smctl", "scale")
    with Case(build, "commands that cannot be done") as case:
        if not case.started(service_text(input=f"pcap: {SAMPLE}, {PACED}")):
            return
        second = case.run("smctl", "run", "service.yaml")
        expect(second.returncode == 1 and re.search("already running", second.stderr) and
               len(second.stderr.strip().splitlines()) == 1, f"a second service: {second.stderr.strip()}", second)
        case.refused(2, "expected 1 to 3 replicas, got 4", "smctl", "scale", "4")
        case.refused(2, "expected 1 to 3 replicas, got 0", "smctl", "scale", "0")
        case.refused(2, "scale", "smctl", "scale", "many")
        case.refused(3, "r9", "smctl", "drain", "r9")
        case.refused(3, "r9", "smctl", "merge", "r1", "--into", "r9")
        case.refused(2, "r1", "smctl", "merge", "r1", "--into", "r1")
        case.refused(3, "r7", "smctl", "move", "udp", "--to", "r7")
        done = case.run("smctl", "scale", "2")
        expect(done.returncode == 0, "scale 2", done.stderr)
        case.refused(1, "no flow matches", "smctl", "move", "host 192.0.2.1", "--to", "r2")
        case.refused(2, "prot", "smctl", "move", "tcp prot 80", "--to", "r2")
        case.refused(2, "shards", "smctl", "move", "shards:99-1", "--to", "r2")
        status = case.service.status()
        expect(status and status["state"] == "running", "the service goes on", status)
        code = case.service.stop()
        log = case.service.log()
        expect(code == 0 and "stopped before the end" in log, f"and ends well when told to: status {code}", log)
        expect(not case.exists("out.pcap") and case.exists("out.pcap.partial"), "its output is partial, and named so")
        live.expect_no_sanitizer(log)
    with Case(build, "a service whose smctl is killed") as case:
        if case.started(service_text(input=f"pcap: {SAMPLE}, {PACED}")):
            case.service.process.kill()
            case.service.process.wait()
            lab.wait_until(lambda: not lab.others(), 10)
            expect(not case.exists("out.pcap"), "no output that only looks whole")
            if case.started(service_text(input=f"pcap: {SAMPLE}, {PACED}")):  # its sockets are no obstacle
                expect(case.service.stop() == 0, "and ends well", case.service.log())


def main():
    given = live.arguments(__doc__)
    real_root = os.geteuid() == 0
    live.enter_or_skip()
    begin = time.monotonic()
    service_files(given.build)
    interfaces(given.build, real_root)
    captures(given.build)
    middleboxes(given.build)
    events(given.build)
    commands(given.build)
    print(f"{time.monotonic() - begin:.1f} s")
    live.finish()


main()
