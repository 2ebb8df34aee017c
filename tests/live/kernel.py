#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-ratelimiter beside the kernel's own limiters, live: each datagram is sent three times, through sm-ratelimiter, by
way of an HTB and of an nftables `limit`, of the same rates. What comes is counted over every second."""

import math
import socket
import struct
import subprocess
import sys
import threading
import time

import live
from live import expect, lab

FRAME, IP = 1014, 1000  # bytes of a datagram: as sm-ratelimiter and HTB count them, as nftables does
RATE = 250_000  # bytes a second of the one limit
BURST = 32 * FRAME  # a pause of the sender, which it makes up for, must not cost a policer its tokens
PORTS = {"policed": 5000, "shaped": 5004, "a": 5001, "b": 5002}
CLASSES = {"policed": 0x10005, "shaped": 0x10006, "a": 0x10010, "b": 0x10020}
TREE, SURE = 500_000, {"a": 300_000, "b": 125_000}  # bytes a second; each may borrow up to the tree's
POLICY = f"""limits:
  - {{name: policed, match: udp dst port 5000, per: all, rate: {RATE * 8}bit, burst: {BURST}B}}
  - name: shaped
    match: udp dst port 5004
    per: all
    rate: {RATE * 8}bit
    burst: {2 * FRAME}B
    exceed: {{shape: {{queue: 80ms}}}}
  - {{name: tree, match: udp dst port 5003, per: all, rate: {TREE * 8}bit, burst: {4 * BURST}B}}
  - {{name: a, match: udp dst port 5001, per: all, rate: {SURE["a"] * 8}bit, ceil: {TREE * 8}bit, burst: {BURST}B, parent: tree}}
  - {{name: b, match: udp dst port 5002, per: all, rate: {SURE["b"] * 8}bit, ceil: {TREE * 8}bit, burst: {BURST}B, parent: tree}}
"""
SO_TIMESTAMPNS = 35


class Way:
    """From the client to the server by one limiter: its sockets, and when what came on each port."""

    def __init__(self, path, name, near, far, length):
        self.name, self.length = name, length
        self.came = {flow: [] for flow in PORTS}
        self.out = {}
        self.running = True
        self.threads = []
        for flow, port in PORTS.items():
            inlet, outlet = (host.socket(socket.AF_INET, socket.SOCK_DGRAM) for host in (path.server, path.client))
            inlet.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            inlet.bind((far, port))
            inlet.settimeout(0.2)
            outlet.bind((near, 0))
            outlet.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, CLASSES[flow])  # how HTB tells them apart
            outlet.connect((far, port))
            self.out[flow] = outlet
            self.threads.append(threading.Thread(target=self.receive, args=(inlet, self.came[flow]), daemon=True))
            self.threads[-1].start()

    def receive(self, inlet, came):
        while self.running:
            try:
                _, extra, _, _ = inlet.recvmsg(2048, 64)
            except TimeoutError:
                continue
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            came.append(seconds + nanoseconds / 1e9)

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join()

    def rate(self, flow, begin, end):
        return sum(begin <= at < end for at in self.came[flow]) * self.length / (end - begin)

    def worst(self, flow, begin, end):
        """The largest difference from the rate over any second, as a part of it."""
        times = sorted(at for at in self.came[flow] if begin <= at < end)
        if len(times) < 10:
            return math.inf
        worst, last = 0, 0
        for first, at in enumerate(times):
            if at + 1 > times[-1]:
                break
            while times[last] < at + 1:
                last += 1
            worst = max(worst, abs((last - first) * self.length - RATE) / RATE)
        return worst


def furnish(path):
    """A link for each of the kernel's limiters beside the one through the middle."""
    for number, name in ((78, "htb"), (79, "nft")):
        lab.link(path.client, name, path.server, name)
        path.client.ip("addr", "add", f"10.{number}.0.1/24", "dev", name)
        path.server.ip("addr", "add", f"10.{number}.0.2/24", "dev", name)

    def tc(*arguments):
        path.client.run("tc", *arguments)

    tc("qdisc", "add", "dev", "htb", "root", "handle", "1:", "htb")
    for number, parent, rate, ceil in (("5", "1:", RATE, RATE), ("6", "1:", RATE, RATE), ("1", "1:", TREE, TREE),
                                       ("10", "1:1", SURE["a"], TREE), ("20", "1:1", SURE["b"], TREE)):
        tc("class", "add", "dev", "htb", "parent", parent, "classid", f"1:{number}", "htb", "rate", f"{rate * 8}bit",
           "ceil", f"{ceil * 8}bit", "burst", BURST, "cburst", BURST, "quantum", FRAME)
        if number != "1":
            tc("qdisc", "add", "dev", "htb", "parent", f"1:{number}", "pfifo", "limit", 20)
    rules = ('add table netdev t; add chain netdev t c { type filter hook ingress device "nft" priority 0; }; '
             f"add rule netdev t c udp dport 5000 limit rate over {RATE} bytes/second burst {BURST} bytes drop")
    path.server.run("nft", rules)


def send(ways, phases):
    """Send each phase's flows, so many bytes a second of each, for its seconds; returns when each began, and the end."""
    payload = bytes(IP - 28)
    begins, start = [], time.time()
    for seconds, flows in phases:
        begins.append(start)
        sent = dict.fromkeys(flows, 0)
        while (passed := time.time() - start) < seconds:
            for flow, rate in flows.items():
                while sent[flow] * FRAME < rate * passed:
                    for way in ways:
                        try:
                            way.out[flow].send(payload)
                        except OSError:
                            pass  # its queue is full: that way has lost it
                    sent[flow] += 1
            time.sleep(0.0005)
        start += seconds
    return begins, start


def judge_one(flow, ours, other, begin, end):
    """A policer beside a policer, a shaper beside a shaper. On a machine that is busy elsewhere our process may be late
    for what the kernel does in its interrupts: up to 6 % are put down to that."""
    mine, its = ours.worst(flow, begin + 1, end), other.worst(flow, begin + 1, end)
    expect(mine <= max(its + 1.5 * FRAME / RATE, 0.06), f"{flow}: over any second within {mine * 100:.2f} % of the "
           f"rate, {other.name} within {its * 100:.2f} %")


def judge_tree(way, both, alone, end):
    got = {flow: way.rate(flow, both + 1, alone) for flow in SURE}
    single = way.rate("b", alone + 1, end)
    print(f"     {way.name}: a {got['a'] * 8 / 1e6:.2f}, b {got['b'] * 8 / 1e6:.2f}; b alone {single * 8 / 1e6:.2f} Mbit/s")
    for flow, sure in SURE.items():
        expect(got[flow] >= sure * 0.95, f"{way.name}: {flow} has what it is sure of", got)
    expect(0.93 < sum(got.values()) / TREE < 1.03, f"{way.name}: together they have the tree's rate", got)
    expect(0.93 < single / TREE < 1.03, f"{way.name}: one alone borrows all that is left", single)


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = lab.Path()
    furnish(path)
    service = lab.Service(given.build)
    limiter = path.middle.start(*service.program("sm-ratelimiter", "--policy", service.write("policy.yaml", POLICY), "--in",
                                                 "interface:left", "--out", "interface:right"),
                                stderr=subprocess.PIPE)
    ways = [Way(path, "sm-ratelimiter", path.CLIENT, path.SERVER, FRAME), Way(path, "htb", "10.78.0.1", "10.78.0.2", FRAME),
            Way(path, "nft", "10.79.0.1", "10.79.0.2", IP)]
    expect(lab.wait_until(lambda: path.client.run("ping", "-c1", "-W1", path.SERVER, check=False).returncode == 0, 10),
           "packets pass")
    one = {"policed": 2 * RATE, "shaped": 2 * RATE}
    both, alone = {"a": TREE, "b": TREE}, {"b": 1.5 * TREE}
    begins, end = send(ways, ((5, one), (3, both), (3, alone)))
    time.sleep(0.5)
    limiter.terminate()
    _, said = limiter.communicate(timeout=20)
    for way in ways:
        way.stop()
    if not given.slow:
        judge_one("policed", ways[0], ways[2], begins[0], begins[1])
        judge_one("shaped", ways[0], ways[1], begins[0], begins[1])
    for way in ways[:2]:
        judge_tree(way, begins[1], begins[2], end)
    live.expect_no_sanitizer(said)
    expect(limiter.returncode == 0, "sm-ratelimiter ended well", said)
    live.expect_alone()
    live.finish()


if __name__ == "__main__":
    sys.exit(main())
