#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A limit that shapes beside the kernel's token bucket filter (tc-tbf): every datagram is sent twice in one run, through
sm-ratelimiter and through TBF with the same rate, burst and longest delay; what comes out is compared in rate, delay and
order. Then a service of two replicas that shapes, by a key and with one bucket for both: one replica is killed, and the
service is ended while packets wait."""

import json
import select
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time

import live
from live import expect, lab

RATE, BURST = 4e6, 16 * 1024
SIZE = 958  # 1000 bytes with UDP, IPv4 and Ethernet headers, which both count
POLICY = """limits:
  - {name: down, match: "udp port 7007", per: destination, rate: 4Mbit, burst: 16KiB, exceed: {shape: {queue: 50ms}}}
"""
SERVICE = """service: shape
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 2, min: 2, max: 2}
ports:
  in: {interface: left}
  out: {interface: right}
limits: {flows: 64k, memory: 256MiB, shape: 16MiB}
"""
SO_TIMESTAMPNS = 35
FLOWS = 8
BESIDE = "10.78.0.2"


def second_link(path):
    """From client to server past the limiter, through TBF."""
    lab.link(path.client, "eth1", path.server, "eth1")
    path.client.ip("addr", "add", "10.78.0.1/16", "dev", "eth1")
    path.server.ip("addr", "add", f"{BESIDE}/16", "dev", "eth1")
    try:
        path.client.run("tc", "qdisc", "add", "dev", "eth1", "root", "tbf", "rate", "4mbit", "burst", "16384",
                        "latency", "50ms")
    except subprocess.CalledProcessError as reason:
        print(f"skipped: no tbf here: {reason.stderr}")
        raise SystemExit(live.SKIPPED)


class Inlet(threading.Thread):
    """What comes to an address: (number, when by the kernel's clock)."""

    def __init__(self, host, address):
        super().__init__(daemon=True)
        self.socket = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((address, 7007))
        self.came, self.going = [], True
        self.start()

    def run(self):
        while self.going or select.select([self.socket], [], [], 0)[0]:
            if not select.select([self.socket], [], [], 0.1)[0]:
                continue
            data, more, _, _ = self.socket.recvmsg(2048, 256)
            seconds, fraction = struct.unpack("qq", more[0][2][:16])
            self.came.append((struct.unpack_from("!I", data)[0], seconds + fraction / 1e9))

    def stop(self):
        self.going = False
        self.join()
        return self.came


def send_both(path, seconds, rate, burst, flows=1):
    """Datagrams in bursts to both, of flows by turns, until the time is over: when each was sent."""
    outlets = [path.client.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    sent, begin = [], time.time()
    while time.time() - begin < seconds:
        for _ in range(burst):
            data = struct.pack("!I", len(sent)) + bytes(SIZE - 4)
            sent.append(time.time())
            for address in (path.SERVER, BESIDE):
                try:
                    outlets[(len(sent) - 1) % flows].sendto(data, (address, 7007))
                except OSError:
                    pass  # TBF is full, and says so to its own host's senders
        time.sleep(max(0, begin + len(sent) * (SIZE + 42) * 8 / rate - time.time()))
    return sent


def figures(sent, came):
    delays = sorted(when - sent[number] for number, when in came)
    span = came[-1][1] - came[0][1]
    return {"packets": len(came), "mbit": (len(came) - 1) * (SIZE + 42) * 8 / span / 1e6,
            "median_ms": statistics.median(delays) * 1e3, "p95_ms": delays[len(delays) * 95 // 100] * 1e3,
            "in_order": [number for number, _ in came] == sorted(number for number, _ in came)}


def compare(path, what, seconds, rate, burst):
    """One load through both."""
    inlets = [Inlet(path.server, address) for address in (path.SERVER, BESIDE)]
    sent = send_both(path, seconds, rate, burst)
    time.sleep(0.3)
    came = [inlet.stop() for inlet in inlets]
    if not expect(all(len(packets) > 10 for packets in came), f"{what}: packets came", [len(p) for p in came]):
        return
    ours, tbf = (figures(sent, packets) for packets in came)
    for name, seen in (("shape", ours), ("tbf", tbf)):
        print(f"     {what}: {name:5} {seen['packets']} of {len(sent)} packets, {seen['mbit']:.3f} Mbit/s, delay median "
              f"{seen['median_ms']:.1f} ms, p95 {seen['p95_ms']:.1f} ms")
    expect(ours["in_order"], f"{what}: none overtakes another")
    expect(0.95 < ours["packets"] / tbf["packets"] < 1.05, f"{what}: as many pass as through TBF", ours, tbf)
    if rate > RATE:
        expect(ours["mbit"] < 1.05 * RATE / 1e6, f"{what}: {ours['mbit']:.3f} Mbit/s is not above the rate")
        expect(ours["packets"] < len(sent), f"{what}: what would wait for longer is dropped")


def alone(path, given):
    """The limiter by itself, beside TBF."""
    service = lab.Service(given.build)
    service.write("policy.yaml", POLICY)
    with open(service.path("log"), "w+", encoding="ascii") as log:
        limiter = path.middle.start(*service.program("sm-ratelimiter"), "--policy", service.path("policy.yaml"), "--in",
                                    "interface:left", "--out", "interface:right", "--report", service.path("report.json"),
                                    stdout=log, stderr=log)
        expect(lab.wait_until(lambda: not path.client.run("ping", "-c", 1, "-W", 1, path.SERVER, check=False).returncode, 20),
               "the limiter runs")
        compare(path, "half the rate", 2, RATE / 2, 4)
        compare(path, "twice the rate", 3, 2 * RATE, 8)
        limiter.send_signal(signal.SIGTERM)
        status = limiter.wait(20)
        log.seek(0)
        expect(status == 0, f"SIGTERM ends it with status {status}", log.read())
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=False)
    expect(set(report["packets"]["dropped"]) == {"limit:down"}, "dropped for the limit alone", report["packets"])
    expect(report["shape"]["packets"] > 0 and report["shape"]["live"] == 0, "all delayed packets have left",
           report["shape"])


def killed(path, given, per):
    """Two replicas, one of which is killed under load; the service is told to end while packets wait."""
    print(f"-- per {per}, with a death")
    service = lab.Service(given.build, path.middle)
    service.write("policy.yaml", POLICY.replace("destination", per))
    service.write("service.yaml", SERVICE)
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return
    sender = threading.Thread(target=send_both, args=(path, 3, 2 * RATE, 8, FLOWS))
    inlet = Inlet(path.server, path.SERVER)
    sender.start()
    time.sleep(1)
    victim = service.status()["replicas"][0]
    path.middle.run("kill", "-9", victim["pid"])
    time.sleep(1)
    code = service.stop()
    sender.join()
    times = inlet.stop()
    came = [number for number, _ in times]
    expect(code == 0, f"SIGTERM ends the service with status {code}", service.log())
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    live.expect_report(report, moves=False)
    expect(report["deaths"]["replicas"] == 1, "one replica died", report["deaths"])
    expect(report["shape"]["packets"] > 0 and report["shape"]["live"] == 0, "all delayed packets have left",
           report["shape"])
    flows = [[number for number in came if number % FLOWS == flow] for flow in range(FLOWS)]
    expect(all(flow == sorted(set(flow)) and flow for flow in flows), "none overtakes another, none comes twice")
    if per == "all":
        mbit = ((len(came) - 1) * (SIZE + 42) - BURST) * 8 / (times[-1][1] - times[0][1]) / 1e6
        expect(0.5 * RATE < mbit * 1e6 < 1.05 * RATE, f"{mbit:.3f} Mbit/s: no more than the rate, whoever dies")


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = lab.Path()
    second_link(path)
    alone(path, given)
    killed(path, given, "source")
    killed(path, given, "all")
    live.expect_alone()
    live.finish()


main()
