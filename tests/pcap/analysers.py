#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Programs that keep flows or hosts in memory of their own, unmodified, under drain: one that reads the capture itself,
and 1 to 4 replicas that are split and merged at random, come to the same results. What a program keeps says by which key
its packets are steered.

usage: analysers.py --build BUILD --capture FILE [--rounds N] [--preload LIBRARY] [PROGRAM ...]
"""

import collections
import csv
import glob
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import replicas  # noqa: E402
from replicas import checks, expect, records, service  # noqa: E402

DRAIN = ', strategy: drain, idle: 600s, output: "out-{{replica}}.txt", steer: {}'


def schedule(rng, count):
    """Up early on; then to other than before, some of which wait for flows to end while the input goes on."""
    now = rng.choice((2, 3, 4))
    lines = [f"packet={rng.randrange(1, count // 4)} scale {now}"]
    for at in sorted(rng.sample(range(count // 4, count), 3)):
        now = rng.choice([n for n in (1, 2, 3, 4) if n != now])
        lines.append(f"packet={at} scale {now}")
    return "\n".join(lines) + "\n"


class Run:
    """One program, one schedule, in a folder of its own."""

    def __init__(self, folder, options, rng):
        self.folder, self.options, self.rng = folder, options, rng
        self.read(options.capture)

    def read(self, capture):
        """That is the capture, and there is a schedule for it."""
        packets = sum(1 for _ in records(capture))
        self.capture = capture
        self.small = packets < 10000  # and may have nothing for a program to find
        self.events = schedule(self.rng, packets)

    def path(self, name):
        return os.path.join(self.folder, name)

    def alone(self, *command, **more):
        return subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, **more).stdout

    def service(self, steer, program, *args):
        report = service(self.folder, self.options, program, list(args), self.events, DRAIN.format(steer), self.capture)
        busy = [replica["name"] for replica in report["replicas"] if replica["packets"] > 0]
        expect(len(busy) > 1 or steer == "all", f"{program} by {steer}: {len(busy)} replicas had packets",
               report["replicas"], self.events)

    def lines(self, pattern):
        """Of the files that fit, one of each replica or one of the program alone."""
        for name in sorted(glob.glob(self.path(pattern))):
            with open(name, encoding="utf-8", errors="replace") as file:
                yield from (line.rstrip("\n") for line in file)

    def same(self, what, expected, seen):
        expected, seen = (collections.Counter(found) for found in (expected, seen))
        return expect((expected or self.small) and expected == seen, f"{what}: {sum(expected.values())} alone, the same ones",
                      f"missing: {list((expected - seen).items())[:5]}", f"more: {list((seen - expected).items())[:5]}",
                      self.events)


# ---- tshark ----

CONVERSATION = re.compile(r"(\S+) +<-> (\S+) +(\d+) ([\d,]+ \S+) +(\d+) ([\d,]+ \S+) +\d+ [\d,]+ \S+ +-?[\d.]+ +[\d.]+$")


def conversations(lines):
    """Frames in each direction between two ends. One that was quiet after its end may have gone on elsewhere: frames
    are added up. Bytes are rounded, and so compared where there is one part."""
    found = collections.defaultdict(list)
    protocol = ""
    for line in lines:
        if line.endswith("Conversations"):
            protocol = line.split()[0]
        fields = CONVERSATION.match(line)
        if fields:
            a, b, back, back_bytes, there, there_bytes = fields.groups()
            ways = [(int(there), there_bytes), (int(back), back_bytes)]
            found[protocol, min(a, b), max(a, b)].append(ways if a < b else ways[::-1])
    return found


def tshark(run):
    statistics = ["-n", "-q", "-z", "conv,tcp", "-z", "conv,udp"]
    expected = conversations(run.alone("tshark", *statistics, "-r", run.capture).splitlines())
    run.service("flow", "tshark", *statistics, "-i", "sm:{service}")
    seen = conversations(run.lines("out-r*.txt"))

    def frames(found):
        return [(ends, *(sum(part[way][0] for part in parts) for way in (0, 1))) for ends, parts in found.items()]

    def volumes(found):
        return [(ends, str(parts[0])) for ends, parts in found.items()
                if len(parts) == 1 and len(expected[ends]) == 1 and len(seen[ends]) == 1]

    run.same("tshark: conversations", frames(expected), frames(seen))
    run.same("tshark: bytes of those in one part", volumes(dict(expected)), volumes(dict(seen)))


# ---- p0f ----

OF_FLOWS = ("syn", "syn+ack", "mtu", "http request", "http response")


def findings(lines):
    """What p0f found, without the time. It looks at dates only where it reads no file, and says so as a reason."""
    for line in lines:
        line = re.sub(r"^\[[^]]*\] ", "", line)
        line = re.sub(r"(reason=(?:[^|]* )?)date ?([^|]*)", lambda found: (found[1] + found[2]).strip(), line)
        if "reason=|" not in line:
            yield line


def p0f(run, steer="flow"):
    """It tells systems by flows, and sees from one connection of a host to the next how long it is up and whether it
    has changed: that takes both directions of all flows of a host, which no key gives but `all`."""
    run.alone("p0f", "-r", run.capture, "-o", "alone.log")
    expected = findings(run.lines("alone.log"))
    run.service(steer, "p0f", "-i", "sm:{service}", "-o", "log-{replica}.txt")
    seen = findings(run.lines("log-r*.txt"))
    if steer != "all":
        expected, seen = ([line for line in found if line.split("|")[0][4:] in OF_FLOWS] for found in (expected, seen))
    run.same(f"p0f by {steer}: findings", expected, seen)


# ---- prads ----

def assets(lines):
    """Lines of its log. What it takes for DNS on another port is what was in its buffer behind the packet."""
    for line in lines:
        if not line.startswith("asset,") and ("domain:DNS" not in line or ",53," in line):
            yield line


def prads(run, steer="flow"):
    """It says once what it finds out about a host, from flows that it sees both directions of: by flow every replica says it
    that has one of the host's flows."""
    run.alone("prads", "-r", run.capture, "-l", "alone.log")
    expected = assets(run.lines("alone.log"))
    run.service(steer, "prads", "-i", "sm:{service}", "-l", "log-{replica}.txt")
    seen = assets(run.lines("log-r*.txt"))
    if steer != "all":
        columns = ([line.split(",") for line in found] for found in (expected, seen))
        expected, seen = ({(line[0], line[1], line[3], line[4]) for line in found} for found in columns)
    run.same(f"prads by {steer}: assets", expected, seen)


# ---- softflowd ----

class Collector:
    """Of NetFlow version 5, by TCP, so that none is lost: packets and octets of each flow."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.flows = collections.defaultdict(lambda: [0, 0])
        self.readers, self.last = [], None
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        while True:
            connection = self.listener.accept()[0]
            if connection.getpeername() == self.last:
                return
            self.readers.append(threading.Thread(target=self.read, args=(connection,)))
            self.readers[-1].start()

    def read(self, connection):
        with connection, connection.makefile("rb") as stream:
            while header := stream.read(24):
                version, count = struct.unpack_from("!HH", header)
                assert version == 5, version
                for _ in range(count):
                    self.add(struct.unpack("!4s4s4sHHIIIIHHBBBBHHBBH", stream.read(48)))

    def add(self, record):
        flow = self.flows[record[0], record[9], record[1], record[10], record[13]]
        flow[0] += record[5]
        flow[1] += record[6]

    def finish(self):
        """When all who sent have ended: the flows."""
        end = socket.socket()
        end.bind(("127.0.0.1", 0))
        self.last = end.getsockname()
        end.connect(self.listener.getsockname())
        for thread in (self.thread, *self.readers):
            thread.join()
        return [(*flow, *sums) for flow, sums in self.flows.items()]


def softflowd(run):
    arguments = ["-d", "-v", "5", "-P", "tcp", "-m", "100000", "-p", run.path("pid-{replica}"), "-c",
                 run.path("control-{replica}"), "-n"]
    collector = Collector()
    run.alone("softflowd", *arguments, collector.address, "-r", run.capture)
    expected = collector.finish()
    collector = Collector()
    # It takes what is before the first colon for the interface's number.
    run.service("flow", "softflowd", *arguments, collector.address, "-i", "0:sm:{service}")
    run.same("softflowd: flows, with packets and octets", expected, collector.finish())


# ---- argus ----

def is_plain(frame):
    """TCP or UDP in an IP packet that is no fragment, without tags."""
    if frame[12:14] == b"\x08\x00":
        return frame[23] in (6, 17) and struct.unpack_from("!H", frame, 20)[0] & 0x3fff == 0
    return frame[12:14] == b"\x86\xdd" and frame[20] in (6, 17)


def from_now(capture, to):
    """What argus can make sense of: it goes by the wall clock, and of flows that ended more than half a minute ago it writes
    nothing. So time begins now, and goes a hundred times as fast. Of ESP it writes into packets, and of other protocols
    than IP it says what was in its buffer before."""
    start, first = time.time_ns() // 1000, None
    with open(capture, "rb") as file, open(to, "wb") as out:
        out.write(file.read(24))
        for seconds, micro, captured, length, data in records(capture):
            now = seconds * 1000000 + micro
            first = first or now
            now = start + (now - first) // 100
            if is_plain(data):
                out.write(struct.pack("<IIII", now // 1000000, now % 1000000, captured, length) + data)


def volumes(run, names):
    """Packets and bytes between two ends, of all records about them: how many records there are goes by the clock."""
    fields = ["proto", "saddr", "sport", "daddr", "dport", "pkts", "bytes"]
    found = collections.defaultdict(lambda: [0, 0])
    for name in names:
        for line in run.alone("ra", "-F", "/dev/null", "-nn", "-L", "-1", "-c", ",", "-s", *fields, "-r", name).splitlines():
            protocol, a, a_port, b, b_port, packets, size = line.split(",")[:7]
            if protocol != "man":
                flow = found[protocol, *sorted([(a, a_port), (b, b_port)])]
                flow[0] += int(packets)
                flow[1] += int(size)
    return [(*flow, *sums) for flow, sums in found.items()]


def argus(run):
    now = run.path("now.pcap")
    from_now(run.capture, now)
    run.read(now)
    run.service("flow", "argus", "-X", "-i", "sm:{service}", "-w", "audit-{replica}.argus")
    run.alone("argus", "-X", "-r", now, "-w", "alone.argus")
    run.same("argus: packets and bytes of flows", volumes(run, ["alone.argus"]),
             volumes(run, glob.glob(run.path("audit-r*.argus"))))


# ---- ndpiReader ----

def classifications(run, pattern, columns):
    """Of each flow: as much of its line as is asked for, but its number."""
    return [tuple(line[column] for column in columns) for line in csv.reader(run.lines(pattern))
            if line and not line[0].startswith("#")]


def as_if_live(capture, to):
    """What ndpiReader makes of an interface: packets are cut at 1536 bytes, and flows that are idle for 30 s forgotten
    without a word; so time goes three times as fast."""
    first = None
    with open(capture, "rb") as file, open(to, "wb") as out:
        out.write(file.read(24))
        for seconds, micro, captured, length, data in records(capture):
            now = seconds * 1000000 + micro
            first = first or now
            now = first + (now - first) // 3
            captured = min(captured, 1536)
            out.write(struct.pack("<IIII", now // 1000000, now % 1000000, captured, length) + data[:captured])


def ndpi(run, steer="host-pair"):
    """It keeps what it knows of hosts for their next flows: by `all` the same lines; by host pair the same classification of
    each flow of TCP and UDP, but where it had it from elsewhere."""
    fast = run.path("fast.pcap")
    as_if_live(run.capture, fast)
    run.capture = fast
    run.alone("ndpiReader", "-i", fast, "-C", "alone.csv")
    run.service(steer, "ndpiReader", "-i", "sm:{service}", "-C", "flows-{replica}.csv")
    columns = range(1, 40)
    run.same(f"ndpiReader by {steer}: flows", classifications(run, "alone.csv", columns),
             classifications(run, "flows-r*.csv", columns))


def everything(program):
    return lambda run: program(run, "all")


PROGRAMS = {"tshark": tshark, "p0f": p0f, "p0f-all": everything(p0f), "prads": prads, "prads-all": everything(prads),
            "softflowd": softflowd, "argus": argus, "ndpiReader": everything(ndpi)}


def main():
    full = os.environ.get("SM_FULL") == "1"
    names = [name for name in sys.argv if name in PROGRAMS] or list(PROGRAMS)
    sys.argv = [argument for argument in sys.argv if argument not in PROGRAMS]
    commands = {name.split("-")[0] for name in names}
    options = replicas.arguments(__doc__, commands | ({"ra"} if "argus" in commands else set()))
    rounds = options.rounds or (5 if full else 1)
    for number in range(rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                PROGRAMS[name](Run(folder, options, random.Random(options.seed + number)))
    checks.finish()


main()
