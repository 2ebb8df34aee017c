#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Programs of libpcap, unmodified, as replicas of a service that is scaled at random: what all of them have seen
together is what one sees that reads the capture itself.

usage: programs.py --build BUILD --capture FILE [--rounds N] [--preload LIBRARY]
"""

import collections
import glob
import os
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import replicas  # noqa: E402
from replicas import checks, expect, records, service  # noqa: E402


def schedule(rng, count):
    """Scale at random packets, to other than before."""
    lines, now = [], 1
    for at in sorted(rng.sample(range(1, count), 6)):
        now = rng.choice([n for n in (1, 2, 3, 4) if n != now])
        lines.append(f"packet={at} scale {now}")
    return "\n".join(lines) + "\n"


def tcpdump(folder, options, seed):
    """The same packets, by time."""
    alone = os.path.join(folder, "alone.pcap")
    subprocess.run(["tcpdump", "-Z", "root", "-r", options.capture, "-w", alone], check=True, stderr=subprocess.DEVNULL)
    expected = list(records(alone))
    report = service(folder, options, "tcpdump", ["-Z", "root", "-n", "-i", "sm:{service}", "-w", "seen-{replica}.pcap"],
                     schedule(random.Random(seed), len(expected)))
    seen = list(records(os.path.join(folder, "seen-all.pcap")))
    expect(collections.Counter(seen) == collections.Counter(expected),
           f"tcpdump: {len(seen)} packets of {len(expected)} alone, the same ones",
           (collections.Counter(expected) - collections.Counter(seen)).most_common(3))
    times = [packet[:2] for packet in seen]
    expect(times == sorted(times), "collected by time")
    busy = [replica for replica in report["replicas"] if replica["packets"] > 0]
    expect(len(busy) > 1 and all(replica["exit"] == 0 for replica in report["replicas"]),
           f"{len(busy)} replicas had packets, all ended by themselves", report["replicas"])
    expect(all(value == "held" for value in report["invariants"].values()), "every invariant held", report["invariants"])


def text(folder, options):
    """What replicas print goes to a file of each, and is put together; a filter of the program's own holds."""
    expression = "tcp and ip"
    alone = subprocess.run(["tcpdump", "-Z", "root", "-Snttr", options.capture, expression], check=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    service(folder, options, "tcpdump", ["-Z", "root", "-Sntt", "-i", "sm:{service}", expression],
            "packet=60 scale 3\n", ', output: "lines-{replica}.txt"')
    with open(os.path.join(folder, "lines-all.txt")) as file:
        seen = file.read()
    # Each that is told to end begins a new line.
    expect(alone and sorted(filter(None, seen.splitlines())) == sorted(alone.splitlines()),
           f"what {len(alone.splitlines())} lines of one tcpdump with a filter say, several say", seen[-500:])


def streams(folders):
    """What tcpflow has written: the streams of each connection. One that was repeated after its end counts once."""
    found = collections.defaultdict(set)
    for folder in folders:
        for name in os.listdir(folder):
            if not name.endswith(".xml"):
                with open(os.path.join(folder, name), "rb") as file:
                    found[re.sub(r"c\d+$", "", name)].add(file.read())
    return found


def tcpflow(folder, options, seed):
    """It puts streams together in memory of its own: flows stay where they began until they end."""
    rng = random.Random(seed)
    arguments = ["-q", "-X", "/dev/null", "-o"]
    alone = os.path.join(folder, "alone")
    os.mkdir(alone)
    subprocess.run(["tcpflow", *arguments, alone, "-r", options.capture], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    count = sum(1 for _ in records(options.capture))
    more, most = sorted(rng.sample(range(2, 5), 2))
    places = sorted(rng.sample(range(1, count), 3))
    events = f"packet={places[0]} scale {more}\npacket={places[1]} scale {most}\npacket={places[2]} scale 1\n"
    report = service(folder, options, "tcpflow", [*arguments, "streams-{replica}", "-i", "sm:{service}"], events,
                     ", strategy: drain, idle: 600s")
    expected = streams([alone])
    seen = streams(glob.glob(os.path.join(folder, "streams-r*")))
    different = [name for name in expected.keys() | seen.keys() if expected.get(name) != seen.get(name)]
    expect(expected and not different, f"tcpflow: the streams of {len(expected)} connections, byte for byte",
           different[:5], events)
    busy = [replica for replica in report["replicas"] if replica["packets"] > 0]
    expect(len(busy) > 1 or count < 10000,  # few flows may all have begun before others came
           f"{len(busy)} replicas had packets", report["replicas"])


def ends(packet):
    """Source and destination of an IPv4 packet that is not ICMP, whose errors go with what they are about."""
    ethernet = packet[4]
    if ethernet[12:14] == b"\x08\x00" and ethernet[23] != 1:
        yield ethernet[26:30], ethernet[30:34]


def steering(folder, options, steer, key):
    """What has the same key is seen by one replica, and not all of it by the same one; by `all` everything is."""
    service(folder, options, "tcpdump", ["-Z", "root", "-n", "-i", "sm:{service}", "-w", "seen-{replica}.pcap"], "",
            f", steer: {steer}", start=4)
    seen = collections.defaultdict(set)
    for name in glob.glob(os.path.join(folder, "seen-r*.pcap")):
        for packet in records(name):
            for source, destination in ends(packet):
                seen[key(source, destination)].add(name)
    several = [found for found, names in seen.items() if len(names) > 1]
    used = len(set().union(*seen.values()))
    expect(not several and (used == 1) == (steer == "all"),
           f"steered by {steer}: {len(seen)} keys in {used} replicas, each in one", several[:5])


def main():
    options = replicas.arguments(__doc__, ["tcpdump", "tcpflow"])
    seed = options.seed
    for number in range(options.rounds or 2):
        with tempfile.TemporaryDirectory() as folder:
            tcpdump(folder, options, seed + number)
        with tempfile.TemporaryDirectory() as folder:
            tcpflow(folder, options, seed + number)
    with tempfile.TemporaryDirectory() as folder:
        text(folder, options)
    for steer, key in {"host-pair": lambda a, b: frozenset((a, b)), "source": lambda a, _: a,
                       "destination": lambda _, b: b, "all": lambda *_: None}.items():
        with tempfile.TemporaryDirectory() as folder:
            steering(folder, options, steer, key)
    checks.finish()


main()
