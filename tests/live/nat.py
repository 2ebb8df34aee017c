#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-nat as a service between a client and a server that only ever sees the outside address.

HTTP and iperf3 downloads, FTP in both modes and a UDP probe go on while the service is scaled 1-3-1, replicas are
killed, and another file of the program takes over; no connection may break. In the end everything has been given back,
and no outside end was ever held twice.
"""

import collections
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time

import live
from live import expect, lab

OUTSIDE = "10.77.1.1"
CONFIG = f"inside: {lab.Path.CLIENT}/32\noutside: {OUTSIDE}\ntimeouts: {{transitory: 2s, udp: 2s, icmp: 2s}}\n"
SERVICE = """service: nat
middlebox: {exec: sm-nat, args: [--config, nat.yaml]}
replicas: {start: 1, min: 1, max: 4}
ports:
  in: {interface: left}
  out: {interface: right}
limits: {flows: 64k, bindings: 64k, memory: 256MiB}
"""
FTP_SCRIPT = """
import ftplib, hashlib, io, sys
address, passive, again = sys.argv[1], sys.argv[2] == "passive", int(sys.argv[3])
ftp = ftplib.FTP(address, timeout=60)
ftp.login()
ftp.set_pasv(passive)
for number in range(again):
    digest = hashlib.sha256()
    ftp.retrbinary("RETR file", digest.update)
    ftp.storbinary("STOR back-%s-%d" % (sys.argv[2], number), io.BytesIO(bytes(range(256)) * 2000))
    print(digest.hexdigest())
ftp.quit()
"""


class Task(threading.Thread):
    """A command of the client's, and how it ended."""

    def __init__(self, host, *command):
        super().__init__(daemon=True)
        self.host, self.command, self.done = host, command, None
        self.start()

    def run(self):
        self.done = self.host.run(*self.command, check=False, timeout=150)

    def result(self, what):
        self.join(160)
        done = self.done
        expect(done is not None and done.returncode == 0, what, done and (done.stdout[-500:], done.stderr[-1500:]))
        return done.stdout if done else ""


def kill_one(rng, service):
    found = json.loads(service.smctl("replicas", "--json").stdout or '{"replicas": []}')["replicas"]
    ready = [replica["pid"] for replica in found if replica["state"] == "ready"]
    if not ready:
        return False
    os.kill(rng.choice(ready), signal.SIGKILL)
    return True


def disturb(rng, service, rounds):
    """Scale 1-3-1 and kill in between; how many died."""
    killed = 0
    for _ in range(rounds):
        for replicas in (3, 1):
            for _ in range(40):  # a death may have come between, or its replacement be on its way
                done = service.smctl("scale", replicas, timeout=90)
                if done.returncode == 0 or not any(why in done.stderr for why in ("limits.hold.time", "under way")):
                    break
                time.sleep(0.25)
            expect(done.returncode == 0, f"scale {replicas}", done.stderr)
            for _ in range(2 if replicas == 3 else 1):
                time.sleep(0.3 + rng.random() / 2)
                killed += kill_one(rng, service)
            lab.wait_until(lambda: (service.status() or {}).get("state") == "running", 10)
            time.sleep(0.5)
    return killed


def upgrade(service, program):
    """Another file takes over."""
    new = service.path("sm-nat-new")
    shutil.copy(program, new)
    done = service.smctl("upgrade", "--exec", new, "--trial", "1s", timeout=90)
    expect(done.returncode == 0, "upgrade", done.stderr)
    found = json.loads(service.smctl("replicas", "--json").stdout)["replicas"]
    expect(all(os.readlink(f"/proc/{replica['pid']}/exe") == new for replica in found), "the new file runs", found)


def sessions(service):
    done = service.smctl("flows", "--json")
    return json.loads(done.stdout)["flows"] if done.returncode == 0 else []


def audit(found):
    """Every outside end serves one session at a time towards one place."""
    held = collections.Counter()
    for flow in found:
        state = {name: field["value"] for name, field in flow["state"].items()}
        held[tuple(state[name] for name in ("protocol", "outside", "outside_port", "remote", "remote_port"))] += 1
    return [end for end, count in held.items() if count > 1]


def alone(path, service):
    """The program without a service, both ways between the interfaces."""
    process = path.middle.start(*service.program("sm-nat", "--config", service.path("nat.yaml"), "--in", "interface:left",
                                                 "--out", "interface:right"))
    pinged = lab.wait_until(
        lambda: path.client.run("ping", "-c", "1", "-W", "1", path.SERVER, check=False).returncode == 0, 10)
    expect(pinged, "ping through it alone")
    process.terminate()
    expect(process.wait(10) == 0, "SIGTERM ends it with status 0")


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    rng = random.Random(int(os.environ.get("SM_SEED", time.time())))
    path, rounds = lab.Path(), 1 if given.slow else 2
    mac = json.loads(path.client.run("ip", "-j", "link", "show", "eth0").stdout)[0]["address"]
    path.server.ip("neigh", "add", OUTSIDE, "lladdr", mac, "dev", "eth0", "nud", "permanent")
    service = lab.Service(given.build, path.middle)
    service.write("nat.yaml", CONFIG)
    service.write("service.yaml", SERVICE)
    alone(path, service)
    os.mkdir(service.path("share"), 0o755)
    content = random.Random(1).randbytes((4 if given.slow else 24) << 20)
    with open(service.path("share/file"), "wb") as file:
        file.write(content)
    digest = hashlib.sha256(content).hexdigest()
    process = service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        live.finish()
    with open(service.path("seen"), "w", encoding="utf-8") as file:
        seen = path.server.start("tcpdump", "-lnqi", "eth0", f"ip and src net {path.CLIENT}", stdout=file, stderr=-3)
    here = os.path.dirname(os.path.abspath(__file__))
    servers = [path.server.start(sys.executable, "-m", "http.server", "-d", service.path("share"), "80", stdout=-3,
                                 stderr=-3),
               path.server.start(sys.executable, os.path.join(here, "ftpd.py"), service.path("share"), stdout=-3,
                                 stderr=-3),
               path.server.start("iperf3", "-s", stdout=-3, stderr=-3)]
    time.sleep(1.5)
    ping = path.client.run("ping", "-c", "3", "-i", "0.2", path.SERVER, check=False)
    expect(ping.returncode == 0, "ping", ping.stdout, service.log()[-2000:])

    seconds = "6" if given.slow else "14"
    probe = lab.Probe(path.client, path.server, path.SERVER, flows=8, rate=200)
    tasks = [Task(path.client, "curl", "-sS", "--limit-rate", "2M", "-o", service.path(f"got{number}"),
                  f"http://{path.SERVER}/file") for number in range(3)]
    iperf = Task(path.client, "iperf3", "-J", "-R", "-P", "4", "-b", "5M", "-t", seconds, "-c", path.SERVER)
    ftp = [Task(path.client, sys.executable, "-c", FTP_SCRIPT, path.SERVER, mode, 1 if given.slow else 4)
           for mode in ("active", "passive")]
    time.sleep(0.5)
    killed = disturb(rng, service, rounds)
    expect(killed >= 3 * rounds - 1, f"{killed} replicas killed")
    upgrade(service, service.program("sm-nat")[0])
    twice = audit(sessions(service))
    expect(not twice, "no outside end is held twice", twice)
    for number, task in enumerate(tasks):
        task.result(f"curl {number}")
        with open(service.path(f"got{number}"), "rb") as file:
            expect(hashlib.sha256(file.read()).hexdigest() == digest, f"curl {number}: the whole file")
    result = json.loads(iperf.result("iperf3") or "{}")
    streams = result.get("end", {}).get("streams", [])
    expect(len(streams) == 4 and all(stream["receiver"]["bytes"] > 0 for stream in streams) and "error" not in result,
           "iperf3: four streams to their end", result.get("error"))
    for mode, task in zip(("active", "passive"), ftp):
        said = task.result(f"FTP, {mode}").split()
        expect(said and set(said) == {digest}, f"FTP, {mode}: {len(said)} transfers each way, whole")
    lost = probe.stop()
    expect(lost["sent"] > 100 and lost["reordered"] == 0 and lost["duplicates"] == 0, f"probe: {lost}")

    left = lab.wait_until(lambda: not sessions(service), 20) or sessions(service)
    expect(left is True, "all sessions have ended", left)
    status = service.status()
    expect(status and status["bindings"]["live"] == 0, "and every outside end was given back", status)
    seen.terminate()
    seen.wait()
    with open(service.path("seen"), encoding="utf-8") as file:
        inside = file.read().strip()
    expect(not inside, "the server saw no inside address", inside[-500:])
    for server in servers:
        server.terminate()
        server.wait(5)
    code = service.stop()
    expect(code == 0, f"SIGTERM ends the service with status {code}", service.log())
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=True)
    expect(report["deaths"]["replicas"] == killed, f"{report['deaths']['replicas']} deaths by the report")
    expect(report["bindings"]["steered"] > 1000 and report["bindings"]["refused"] == 0, f"{report['bindings']}")
    print(f"     {report['packets']}")
    expect(process.poll() is not None, "smctl run has ended")
    live.expect_alone()
    live.finish()


main()
