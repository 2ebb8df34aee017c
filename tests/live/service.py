#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A limiter as a service between two interfaces, split and merged twenty times while iperf3 and a probe run through it.

Nothing may be lost or reordered by a move: by the service's own report, by sequence numbers of our own from end to end,
and by iperf3. What the machine lost outside of the service (a socket's or a ring's buffer ran over, since all of it
shares its few cores) is known by the kernel's counters, and only that much is excused, never reordering.
"""

import json
import threading
import time

import live
from live import expect, lab

POLICY = """limits:
  - {name: bulk, match: "tcp port 5201", per: flow, rate: 4Mbit, burst: 256KiB}
  - {name: udp, match: "udp port 5202", per: flow, rate: 50Mbit, burst: 4MiB}
"""
SERVICE = """service: live
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 1, min: 1, max: 3}
ports:
  in: {interface: left}
  out: {interface: right}
limits: {flows: 64k, memory: 256MiB}
"""


class Load(threading.Thread):
    """iperf3 again and again until told to stop; what each run gave."""

    def __init__(self, path, port, *options):
        super().__init__(daemon=True)
        self.server = path.server.start("iperf3", "-s", "-p", port, stdout=-3, stderr=-3)
        self.command = ["iperf3", "-J", "-c", path.SERVER, "-p", port, "-t", "4", *options]
        self.client, self.results, self.failed, self.going = path.client, [], [], True

    def run(self):
        while self.going:
            said = self.client.run(*self.command, check=False, timeout=60).stdout
            try:
                result = json.loads(said)
                if "error" in result:
                    raise ValueError(result["error"])
                self.results.append(result["end"])
            except (ValueError, KeyError) as reason:
                self.failed.append(f"{reason}: {said[-300:]}")
            time.sleep(0.5)  # the server is busy for a moment longer

    def stop(self):
        self.going = False
        self.join(60)
        self.server.terminate()
        self.server.wait(5)


def kernel_losses(path):
    """Datagrams that found no room in a socket of the server."""
    rows = [line.split() for line in path.server.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Udp:")]
    return int(dict(zip(*rows))["RcvbufErrors"])


def scale(service, rounds):
    moved = 0
    for number in range(rounds):
        for replicas in (3, 1):
            for _ in range(3):
                done = service.smctl("scale", replicas, "--json", timeout=90)
                # On a machine that stands still for so long, a move is abandoned rather than a packet dropped.
                if done.returncode != 1 or "limits.hold.time" not in done.stderr:
                    break
                print(f"     again: {done.stderr.strip()}")
            if not expect(done.returncode == 0, f"round {number + 1}: scale {replicas}", done.stdout, done.stderr):
                return moved
            result = json.loads(done.stdout)
            moved += result["completed"]
            time.sleep(0.3)
    return moved


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = lab.Path()
    service = lab.Service(given.build, path.middle)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", SERVICE)
    process = service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        live.finish()
    tcp = Load(path, 5201, "-P", "4")
    udp = Load(path, 5202, "-u", "-b", "500K" if given.slow else "4M", "-l", "500", "-w", "1M", "-P", "2")
    more = Load(path, 5203, "-P", "4", "-b", "5M" if given.slow else "150M")  # so that moves meet packets
    time.sleep(0.5)
    before = kernel_losses(path)
    probe = lab.Probe(path.client, path.server, path.SERVER, flows=32, rate=200 if given.slow else 1000)
    tcp.start()
    udp.start()
    more.start()
    time.sleep(1)
    moved = scale(service, 3 if given.slow else 20)
    expect(moved > 0, f"{moved} moves by smctl's account")
    status = service.status()
    expect(status and status["state"] == "running" and len(status["replicas"]) >= 1, "it still runs", status)
    tcp.stop()
    udp.stop()
    more.stop()
    seen = probe.stop()
    socket_losses = kernel_losses(path) - before
    code = service.stop()
    expect(code == 0, f"SIGTERM ends the service with status {code}", service.log())
    live.expect_no_sanitizer(service.log())
    try:
        with open(service.path("report.json"), encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError) as reason:
        expect(False, f"there is a report: {reason}", service.log())
        live.finish()
    live.expect_report(report, moves=True)
    expect(set(report["packets"]["dropped"]) <= {"limit:bulk", "overload"}, f"dropped: {report['packets']['dropped']}")
    expect(report["moves"]["completed"] >= moved, "and as many by the switch's")
    print(f"     {report['moves']['held_packets']} packets waited for a move")  # of a trickle maybe none; events.py has more

    outside = socket_losses + report["packets"]["dropped"].get("overload", 0)
    outside += sum(port["rx_missed"] + port["tx_failed"] for port in report["ports"])
    print(f"     lost outside of the service: {outside}")
    expect(seen["sent"] > 100 and seen["lost"] <= outside, f"probe: lost {seen['lost']} of {seen['sent']}", seen)
    expect(seen["reordered"] == 0 and seen["duplicates"] == 0, "probe: none reordered, none twice", seen)
    expect(udp.results and not udp.failed, f"iperf3 UDP: {len(udp.results)} runs", udp.failed)
    lost = sum(result["sum"]["lost_packets"] for result in udp.results)
    packets = sum(result["sum"]["packets"] for result in udp.results)
    late = sum(stream["udp"].get("out_of_order", 0) for result in udp.results for stream in result["streams"])
    expect(lost <= outside, f"iperf3 UDP: lost {lost} of {packets}")
    expect(late == 0, f"iperf3 UDP: {late} out of order")
    # Its control connection is among the limited: one that gives up is no fault.
    expect(len(tcp.results) > len(tcp.failed), f"iperf3 TCP: {len(tcp.results)} runs", tcp.failed)
    if tcp.results:
        rate = sum(result["sum_received"]["bits_per_second"] for result in tcp.results) / len(tcp.results)
        most = 16e6 + 4 * 256 * 1024 * 8 / 4
        expect(0 < rate < 1.05 * most, f"iperf3 TCP: {rate / 1e6:.1f} Mbit/s of four flows with 4 Mbit/s each")
    expect(process.poll() is not None, "smctl run has ended")
    live.expect_alone()
    live.finish()


main()
