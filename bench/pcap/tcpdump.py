#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What tcpdump -w /dev/null costs on an interface and as a replica of a service of that interface, under the same load
in turns: CPU time per packet of the capturing process, and with that of the switch. As root, with iperf3.

usage: tcpdump.py --build BUILD [--rounds N] [--seconds S] [--rate BITS]
"""

import argparse
import glob
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))

import lab  # noqa: E402


def cpu(pid):
    """Nanoseconds that a process's threads have run, in user and kernel mode."""
    total = 0
    for task in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(task, encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def named(name):
    return next((pid for pid, command in lab.others() if os.path.basename(command.partition(" ")[0]) == name), None)


def received(text):
    return sum(map(int, re.findall(r"(\d+) packets received by filter", text)))


def load(path, options):
    """UDP of 64 bytes from client to server, for a while."""
    path.client.run("iperf3", "-u", "-c", path.SERVER, "-l", 22, "-b", options.rate, "-t", options.seconds, check=False,
                    timeout=options.seconds + 20)


def measure(path, options, command, env):
    """CPU per packet, in ns, of tcpdump and of the switch."""
    process = path.middle.start(*command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lab.wait_until(lambda: named("tcpdump"), 10)
    time.sleep(0.7)
    pids = {name: named(name) for name in ("tcpdump", "sm-switch")}
    before = {name: cpu(pid) if pid else 0 for name, pid in pids.items()}
    load(path, options)
    used = {name: cpu(pid) - before[name] if pid else 0 for name, pid in pids.items()}
    process.terminate()
    packets = received(process.communicate(timeout=30)[0])
    return packets, used["tcpdump"] / packets, used["sm-switch"] / packets


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rate", default="40M")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    lab.enter()
    path = lab.Path()
    subprocess.run(["ip", "-n", "middle", "link", "add", "bridge", "type", "bridge"], check=True)
    for name in ("left", "right"):
        path.middle.ip("link", "set", name, "master", "bridge")
    path.middle.ip("link", "set", "bridge", "up")
    path.server.start("iperf3", "-s", stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    with tempfile.TemporaryDirectory() as folder:
        service = os.path.join(folder, "service.yaml")
        with open(service, "w", encoding="ascii") as file:
            file.write('service: cost\nmiddlebox: {exec: tcpdump, args: [-Z, root, -n, -i, "sm:{service}", -w, /dev/null]}\n'
                       "mode: tap\nports: {in: {interface: left}}\n")
        env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
        ways = {"AF_PACKET": ["tcpdump", "-Z", "root", "-n", "-i", "left", "-w", "/dev/null"],
                "drop-in": [os.path.join(options.build, "orchestrator", "smctl"), "run", service]}
        results = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, command in ways.items():
                results[way].append(measure(path, options, command, env))
    for way, rows in results.items():
        packets, process, switch = (statistics.median(column) for column in zip(*rows))
        print(f"{way:10} {packets:9.0f} packets   tcpdump {process:6.0f} ns a packet   with the switch {process + switch:6.0f}")
    ratio = statistics.median(o[1] for o in results["drop-in"]) / statistics.median(o[1] for o in results["AF_PACKET"])
    print(f"drop-in / AF_PACKET, capturing process: {ratio:.2f}")


main()
