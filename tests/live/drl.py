#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Three and seven TCP connections through two hosts that have one 20 Mbit limit together, and through one that has it.

The paper's first experiment with real TCP: what all get is counted by the kernel where it arrives, each connection's
rate is iperf3's. SM_FULL=1 does it with each way of sharing the limit.
"""

import json
import os
import time

import live
from live import expect, lab

RATE = 20e6 / 8
SECONDS = 8
SERVICE = """service: drl
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 1}
ports:
  in: {interface: left}
  out: {interface: right}
limits: {flows: 16k, memory: 128MiB}
"""
LIMIT = "limits:\n  - {name: all, match: 'tcp dst port 5201', per: all, rate: 20Mbit, burst: 75KiB%s}\n"
PEERS = "peers: {host: %d, home: 1, listen: '10.99.0.%d:7946', key: key, members: [{host: %d, address: '10.99.0.%d:7946'}]}\n"


class Site:
    """client -- host -- server, and the host's link to the other."""

    def __init__(self, number):
        self.number, self.service, self.sink = number, None, None
        self.client, self.host, self.server = (lab.Host(f"{name}{number}") for name in ("client", "host", "server"))
        for setting in ("all", "default"):
            self.host.write(f"ipv6/conf/{setting}/disable_ipv6", 1)
        lab.link(self.client, "eth0", self.host, "left")
        lab.link(self.host, "right", self.server, "eth0")
        self.client.ip("addr", "add", "10.77.0.1/16", "dev", "eth0")
        self.server.ip("addr", "add", "10.77.0.2/16", "dev", "eth0")
        # The way is short: who waits 200 ms for a lost packet would leave the limit unused.
        self.client.ip("route", "change", "10.77.0.0/16", "dev", "eth0", "rto_min", "10ms")

    def begin(self, build, mode):
        other = 3 - self.number
        self.service = lab.Service(build, self.host)
        text = LIMIT % "" if mode == "one host" else (
            LIMIT % f", distribute: {mode}" + PEERS % (self.number, self.number, other, other))
        self.service.write("policy.yaml", text)
        self.service.write("drl.yaml", SERVICE)
        os.chmod(self.service.write("key", "a secret of two hosts"), 0o600)
        self.service.start("drl.yaml")
        self.sink = self.server.start("iperf3", "-s", stdout=-3, stderr=-3)

    def end(self):
        expect(self.service.stop() == 0, f"host {self.number} ends", self.service.log())
        live.expect_no_sanitizer(self.service.log())
        self.sink.kill()
        self.sink.wait(5)

    def load(self, connections):
        """Paced to half as much again as the limit has for each: TCP behind so short a way would come in lumps."""
        return self.client.start("iperf3", "-J", "-c", "10.77.0.2", "-P", connections, "-t", SECONDS, "-M", 1400,
                                 "--fq-rate", "3M", stdout=-1, stderr=-3)

    def received(self):
        with open(f"/proc/{self.sink.pid}/net/dev", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.split()[0] == "eth0:")

    def knows_the_other(self):
        done = self.service.smctl("peers", "--json")
        peers = json.loads(done.stdout)["peers"] if done.returncode == 0 else []
        return any(peer["state"] == "known" for peer in peers)


def jain(values):
    return sum(values) ** 2 / len(values) / sum(value * value for value in values) if any(values) else 0


def run(sites, build, mode, slow):
    for site in sites:
        site.begin(build, mode)
    for site in sites:
        expect(site.service.wait_running(30), f"{mode}: host {site.number} runs", site.service.log())
    if len(sites) > 1:
        expect(lab.wait_until(lambda: all(site.knows_the_other() for site in sites), 15, 0.2),
               f"{mode}: they know each other", [site.service.log() for site in sites])
    loads = [site.load(count) for site, count in zip(sites, (3, 7) if len(sites) > 1 else (10,))]
    time.sleep(2)
    samples = []
    end = time.monotonic() + SECONDS - 3
    while time.monotonic() < end:
        samples.append((time.monotonic(), sum(site.received() for site in sites)))
        time.sleep(0.1)
    windows = [(b[1] - a[1]) / (b[0] - a[0]) / RATE for a, b in zip(samples, samples[1:])]
    mean = (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0]) / RATE
    miss = (sum((window - 1) ** 2 for window in windows) / len(windows)) ** 0.5
    rates = []
    for load in loads:
        told = json.loads(load.communicate(timeout=30)[0])
        rates += [stream["receiver"]["bits_per_second"] for stream in told.get("end", {}).get("streams", [])]
    print(f"     {mode}: {100 * mean:.1f} % of the limit, off it by {100 * miss:.1f} % over 0.1 s, Jain "
          f"{jain(rates):.3f}, Mbit/s: {' '.join(f'{rate / 1e6:.2f}' for rate in rates)}", flush=True)
    expect(len(rates) == 10, f"{mode}: ten connections to their end", rates)
    if not slow:
        expect(0.5 <= mean <= 1.1, f"{mode}: together they get the limit: {100 * mean:.1f} %", windows)
    for site in sites:
        site.end()


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    sites = [Site(1), Site(2)]
    lab.link(sites[0].host, "peers", sites[1].host, "peers")
    for site in sites:
        site.host.ip("addr", "add", f"10.99.0.{site.number}/24", "dev", "peers")
    run(sites[:1], given.build, "one host", given.slow)
    for mode in ("pool", "exact", "fps", "grd", "gtb", "split") if os.environ.get("SM_FULL") else ("pool",):
        run(sites, given.build, mode, given.slow)
    live.expect_alone()
    live.finish()


main()
