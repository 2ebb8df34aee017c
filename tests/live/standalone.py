#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-ratelimiter alone between two interfaces: two ways, at its limits, until it is told to end."""

import json
import signal
import socket
import tempfile
import threading
import time

import live
from live import expect, lab

LIMIT = 10e6
POLICY = """limits:
  - {name: bulk, match: "tcp port 5201", per: destination, rate: 10Mbit, burst: 512KiB}
  - {name: udp, match: "udp port 5201", per: flow, rate: 4Mbit, burst: 512KiB}
"""


def ping(path, address):
    said = path.client.run("ping", "-n", "-c", 10, "-i", "0.1", "-W", 2, address, check=False).stdout
    expect("10 received" in said, f"ping {address}", said)


def slow_echo(path):
    """Answers that come on their own, not from within the request: they must not wait for the next request."""
    server, client = (host.socket(socket.AF_INET, socket.SOCK_DGRAM) for host in (path.server, path.client))
    server.bind((path.SERVER, 7000))
    client.settimeout(2)

    def serve():
        for _ in range(50):
            data, back = server.recvfrom(100)
            time.sleep(0.003)
            server.sendto(data, back)

    threading.Thread(target=serve, daemon=True).start()
    times = []
    for _ in range(50):
        begin = time.monotonic()
        client.sendto(b"x", (path.SERVER, 7000))
        try:
            client.recv(100)
        except TimeoutError:
            break
        times.append((time.monotonic() - begin - 0.003) * 1000)
    expect(len(times) == 50, "50 late answers came back")
    if times:
        # The quicker quarter: what else runs here may delay the others.
        quick = sorted(times)[len(times) // 4]
        expect(quick < 4, f"at once: {quick:.2f} ms beyond the server's 3 ms")


def iperf(path, *options):
    said = path.client.run("iperf3", "-J", "-c", path.SERVER, "-t", 5, *options, check=False, timeout=40).stdout
    try:
        return json.loads(said)["end"]
    except (ValueError, KeyError):
        expect(False, f"iperf3 {options}", said[-500:])
        return None


def rates(path):
    server = path.server.start("iperf3", "-s", stdout=-3, stderr=-3)
    time.sleep(0.5)
    tcp = iperf(path, "-P", "4")
    if tcp:
        rate = tcp["sum_received"]["bits_per_second"]
        # The burst, beyond the limit in 5 s, and headers, which iperf3 does not count.
        most = LIMIT + 512 * 1024 * 8 / 5
        expect(rate < 1.05 * most, f"TCP not above its limit: {rate / 1e6:.2f} of {LIMIT / 1e6:g} Mbit/s")
        expect(rate > 0.1 * LIMIT, f"nor far below: {rate / LIMIT:.2f} of it")
    udp = iperf(path, "-u", "-b", "2M", "-l", "500")
    if udp:
        # When iperf3 has been kept from sending it makes up for it at once, which no burst is made for.
        late = udp["sum"]["seconds"] - 5
        expect(udp["sum"]["lost_packets"] == 0 or late > 0.2,
               f"UDP below its limit: {udp['sum']['lost_packets']} lost (and {late:.2f} s late)", udp["sum"])
    udp = iperf(path, "-u", "-b", "8M", "-l", "1000")
    if udp:
        lost = udp["sum"]["lost_percent"]
        expect(20 < lost < 60, f"UDP at twice its limit: {lost:.1f} % lost")
    server.terminate()
    server.wait(5)


def catches(pid, number):
    """Whether a process has a handler for that signal: the limiter's last step before it begins."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return any(line.startswith("SigCgt:") and int(line.split()[1], 16) >> (number - 1) & 1 for line in file)


def run(path, given, number, seconds):
    """Once through the limiter, ended by that signal."""
    folder = tempfile.mkdtemp(prefix="sm-")
    with open(f"{folder}/policy.yaml", "w", encoding="ascii") as file:
        file.write(POLICY)
    with open(f"{folder}/log", "w+", encoding="ascii") as log:
        limiter = path.middle.start(*lab.Service(given.build, folder=folder).program("sm-ratelimiter"), "--policy",
                                    f"{folder}/policy.yaml", "--in", "interface:left", "--out", "interface:right",
                                    "--report", f"{folder}/report.json", stdout=log, stderr=log)
        expect(lab.wait_until(lambda: catches(limiter.pid, number), 30), "it has started")
        if seconds:
            ping(path, path.SERVER)
            ping(path, path.SERVER6)
            slow_echo(path)
            rates(path)
            probe = lab.Probe(path.server, path.client, path.CLIENT, rate=500)  # the other way
            time.sleep(seconds)
            seen = probe.stop()
            expect(seen["sent"] > 0 and not seen["lost"] and not seen["reordered"], f"from server to client: {seen}")
        limiter.send_signal(number)
        status = limiter.wait(20)
        log.seek(0)
        said = log.read()
    expect(status == 0, f"{signal.Signals(number).name} ends it with status {status}", said)
    expect(said == "", "and without a word", said)
    if status == 0:
        with open(f"{folder}/report.json", encoding="utf-8") as file:
            report = json.load(file)
        live.expect_report(report, moves=False)
        if seconds:
            ports = {port["name"]: port for port in report["ports"]}
            expect(all(port["rx_packets"] and port["tx_packets"] for port in ports.values()),
                   "both interfaces received and sent", report["ports"])


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = lab.Path()
    run(path, given, signal.SIGTERM, seconds=3)
    run(path, given, signal.SIGINT, seconds=0)
    live.expect_alone()
    live.finish()


main()
