#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The example middlebox counts what a reader of a few lines counts: alone, and split while it runs.

usage: counter.py SOURCE COUNTER SMCTL
"""

import collections
import ipaddress
import json
import os
import struct
import subprocess
import sys
import tempfile

source, counter, smctl = map(os.path.abspath, sys.argv[1:4])
capture = os.path.join(source, "tests/samples/flows.pcap")
IDLE = 10**9


def packets():
    """(time, key, length) of a classic little-endian capture of Ethernet: TCP, UDP and whatever else, no tags."""
    with open(capture, "rb") as file:
        data = file.read()
    at, now = 24, 0
    while at < len(data):
        seconds, fraction, caplen, length = struct.unpack("<IIII", data[at : at + 16])
        packet, at = data[at + 16 : at + 16 + caplen], at + 16 + caplen
        now = max(now, seconds * 10**9 + fraction * 1000)
        kind = struct.unpack(">H", packet[12:14])[0]
        if kind == 0x0800:
            protocol, a, b = packet[23], packet[26:30], packet[30:34]
            ports = packet[14 + (packet[14] & 15) * 4 :][:4]
            assert struct.unpack(">H", packet[20:22])[0] & 0x3FFF == 0, "no fragments in this capture"
        elif kind == 0x86DD:
            protocol, a, b, ports = packet[20], packet[22:38], packet[38:54], packet[54:58]
        else:
            continue
        if protocol not in (6, 17):
            ports = bytes(4)
        yield now, (protocol, *sorted(((a, ports[:2]), (b, ports[2:])))), length


def text(key, flow):
    words = [str(key[0])]
    for address, port in key[1:]:
        words += [str(ipaddress.ip_address(address)), str(int.from_bytes(port, "big"))]
    return "%s %d packets %d bytes" % (" ".join(words), flow[0], flow[1])


def expected():
    """The lines of flows that went idle, how many flows there were, and how many packets."""
    live, lines, created, total = {}, [], 0, 0
    for now, key, length in packets():
        for old in [k for k, flow in live.items() if flow[2] + IDLE <= now]:
            lines.append(text(old, live.pop(old)))
        created += key not in live
        flow = live.setdefault(key, [0, 0, 0])
        flow[:] = flow[0] + 1, flow[1] + length, now
        total += 1
    return sorted(lines), created, total


def check(what, command, folder, total):
    """Run it with a report; return what it printed of flows, and the report."""
    run = subprocess.run(command, cwd=source, env=dict(os.environ, SPLITMERGE_RUN=folder, PATH=os.path.dirname(counter)
                         + ":" + os.environ["PATH"]), stdout=subprocess.PIPE, text=True, timeout=100)
    if run.returncode != 0:
        sys.exit("%s: exit status %d" % (what, run.returncode))
    lines = run.stdout.splitlines()
    totals = [int(line.split()[0]) for line in lines if line.endswith("packets in all")]
    if max(totals) != total:
        sys.exit("%s: replicas counted %s packets in all, not %d" % (what, totals, total))
    with open(os.path.join(folder, "report.json")) as file:
        return sorted(line for line in lines if line.endswith("bytes")), json.load(file)


lines, created, total = expected()
assert len(lines) > 100, "the capture has flows that go idle"
with tempfile.TemporaryDirectory(prefix="splitmerge-counter-") as folder:
    report = os.path.join(folder, "report.json")
    example = os.path.join(source, "middleboxes/counter")
    for what, command in (
        ("alone", [counter, capture, report]),
        ("split", [smctl, "run", example + "/counter.yaml", "--events", example + "/events.txt", "--report", report]),
    ):
        got, told = check(what, command, folder, total)
        if got != lines:
            ours, theirs = collections.Counter(lines), collections.Counter(got)
            sys.exit("%s: missing %s, too many %s" % (what, list((ours - theirs).elements())[:5],
                                                       list((theirs - ours).elements())[:5]))
        shared = told["shared"]
        if [(o["name"], o["kind"], o["value"], sum(c["value"] for c in o["contributions"])) for o in shared] != [
                ("packets", "counter", total, total)]:
            sys.exit("%s: the report's shared objects are %s" % (what, shared))
        if what == "split" and len(shared[0]["contributions"]) < 2:
            sys.exit("split: one replica has counted all")
        flows = told["flows"]
        if (flows["created"], flows["expired"]) != (created, len(lines)):
            sys.exit("%s: the report says %s, not %d created, %d expired" % (what, flows, created, len(lines)))
        print("%s: %d packets, %d flows, %d of them gone idle, %d moved" % (what, total, created, len(lines),
                                                                          flows["moved"]))
