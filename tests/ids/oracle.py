#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What sm-ids finds beside what Python finds: streams of random bytes, cut, reordered, sent again and put together here,
with rules of random contents, searched by re; and datagrams, each alone. Then a capture, its streams put together by a
few lines of a script.

usage: oracle.py SM_IDS CAPTURE        (SM_SEED fixes what is random)
"""
import collections
import gzip
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

program, capture = sys.argv[1:3]
seed = int(os.environ.get("SM_SEED", time.time()))
LETTERS = b"abcd\x00\xff"
FIN, SYN, RST, ACK = 1, 2, 4, 16


# ---- rules: (sid, protocol, contents), a content being (bytes, nocase, options) or a regular expression ----

def text_of(data):
    return "|%s|" % data.hex(" ")


def random_contents(rng):
    def content(first):
        data = bytes(rng.choice(LETTERS) for _ in range(rng.randint(1, 4)))
        options = {}
        kind = rng.choice(["", "", "place"] + ([] if first else ["gap", "gap"]))
        if kind == "place":
            options["offset"] = rng.randint(0, 20)
            if rng.random() < 0.7:
                options["depth"] = len(data) + rng.randint(0, 30)
        elif kind == "gap":
            options["distance"] = rng.randint(0, 5)
            if rng.random() < 0.7:
                options["within"] = len(data) + rng.randint(0, 10)
        return data, rng.random() < 0.3, options
    return [content(number == 0) for number in range(rng.randint(1, 3))]


def rule_text(sid, protocol, contents):
    parts = "".join('content:"%s"; %s%s' % (text_of(data), "nocase; " if nocase else "",
                                            "".join("%s:%d; " % item for item in options.items()))
                    for data, nocase, options in contents)
    return 'alert %s any any -> any any (sid:%d; %s)\n' % (protocol, sid, parts)


def gap(least, most):
    return b"[\\x00-\\xff]{%d,%s}" % (least, b"" if most is None else b"%d" % most)


def expressions(contents):
    """A regular expression for each run of contents that are relative to one another."""
    made = []
    for data, nocase, options in contents:
        what = b"".join(b"[%s%s]" % (b"\\x%02x" % byte, b"\\x%02x" % bytes([byte]).swapcase()[0] if nocase else b"")
                        for byte in data)
        if "distance" in options:
            limit = options["distance"] + options["within"] - len(data) if "within" in options else None
            made[-1] += gap(options["distance"], limit) + what
        elif options:
            limit = options["offset"] + options["depth"] - len(data) if "depth" in options else None
            made.append(b"\\A" + gap(options["offset"], limit) + what)
        else:
            made.append(what)
    return [re.compile(expression) for expression in made]


# ---- packets ----

def ip_packet(source, destination, protocol, payload):
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, socket.inet_aton(source),
                       socket.inet_aton(destination)) + payload


def tcp(source, sport, destination, dport, sequence, acknowledged, flags, data=b""):
    return ip_packet(source, destination, 6, struct.pack("!HHIIBBHHH", sport, dport, sequence % 2**32, acknowledged % 2**32,
                                                         0x50, flags, 65535, 0, 0) + data)


def stream_packets(rng, number, data):
    """A client that sends `data`: in pieces that overlap, some again, none more than a few places out of order."""
    ends = "10.0.%d.%d" % (number // 250, 1 + number % 250), 1024 + number, "192.0.2.1", 80
    back = ends[2:] + ends[:2]
    first = rng.choice([rng.randrange(2**32), 2**32 - rng.randrange(100)])
    pieces, at = [], 0
    while at < len(data):
        end = min(len(data), at + rng.randint(1, 40))
        begin = max(0, at - rng.choice([0, 0, 0, 5]))
        pieces.append((begin, end))
        at = end
    pieces += rng.sample(pieces, len(pieces) // 6)
    order = sorted(range(len(pieces)), key=lambda place: place + rng.choice([0, 0, 3, 7]))
    packets = [tcp(*ends, first, 0, SYN), tcp(*back, 7000, first + 1, SYN | ACK), tcp(*ends, first + 1, 7001, ACK)]
    packets += [tcp(*ends, first + 1 + pieces[place][0], 7001, ACK, data[slice(*pieces[place])]) for place in order]
    return ends[1], packets + [tcp(*ends, first + 1 + len(data), 7001, FIN | ACK)]


def write_pcap(path, packets):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 101))
        for number, packet in enumerate(packets):
            file.write(struct.pack("<IIII", 1000 + number // 1000, number % 1000, len(packet), len(packet)) + packet)


def random_bytes(rng):
    return bytes(rng.choice(LETTERS + b"ABCD") for _ in range(rng.randint(0, 300)))


def merged(rng, queues):
    queues = [list(reversed(queue)) for queue in queues]
    while queues:
        queue = rng.choice(queues)
        yield queue.pop()
        if not queue:
            queues.remove(queue)


# ---- runs ----

def found_by_ids(folder, rules, packets):
    """How often each (sid, source port) was."""
    with open(os.path.join(folder, "r.rules"), "w", encoding="ascii") as file:
        file.write(rules)
    done = subprocess.run([program, "--rules", "r.rules", "--in", packets], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    if done.returncode:
        sys.exit("FAIL exit %d: %s" % (done.returncode, done.stderr))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return collections.Counter((line["alert"]["signature_id"], line["src_ip"], line["src_port"], line["dest_port"])
                               for line in lines)


def compare(what, ours, theirs):
    print("%s: %d alerts, %d of Python" % (what, sum(ours.values()), sum(theirs.values())))
    if ours != theirs:
        sys.exit("FAIL %s: not found: %s, found too often: %s" % (what, list((theirs - ours).items())[:5],
                                                                  list((ours - theirs).items())[:5]))
    if sum(theirs.values()) < 10:
        sys.exit("FAIL %s: too few to tell" % what)


def random_run(folder, rng):
    rules = [(sid, rng.choice(["tcp", "udp", "ip"]), random_contents(rng)) for sid in range(1, 60)]
    streams, datagrams = [random_bytes(rng) for _ in range(150)], [random_bytes(rng) for _ in range(300)]
    expected = collections.Counter()
    for sid, protocol, contents in rules:
        wanted = expressions(contents)
        for number, data in enumerate(streams):
            if protocol != "udp" and all(one.search(data) for one in wanted):
                expected[sid, "10.0.%d.%d" % (number // 250, 1 + number % 250), 1024 + number, 80] += 1
        for number, data in enumerate(datagrams):
            if protocol != "tcp" and all(one.search(data) for one in wanted):
                expected[sid, "10.9.9.9", 1 + number, 53] += 1
    queues = [stream_packets(rng, number, data)[1] for number, data in enumerate(streams)]
    queues += [[ip_packet("10.9.9.9", "192.0.2.2", 17, struct.pack("!HHHH", 1 + number, 53, 8 + len(data), 0) + data)]
               for number, data in enumerate(datagrams)]
    path = os.path.join(folder, "random.pcap")
    write_pcap(path, merged(rng, queues))
    compare("random", found_by_ids(folder, "".join(rule_text(*rule) for rule in rules), path), expected)


def read_pcap(path):
    """The IPv4 packets of a capture of Ethernet, in microseconds or nanoseconds."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        data = file.read()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack(order + "IIII", data[at:at + 16])[2]
        packet = data[at + 16:at + 16 + length]
        at += 16 + length
        if packet[12:14] == b"\x08\x00":
            yield packet[14:]


def streams_of(path):
    """Of connections that begin with a SYN and end without RST: each direction that has no hole, its bytes, with the first
    ones where they differ."""
    streams, begun, odd = {}, set(), set()
    for packet in read_pcap(path):
        fragment, header = struct.unpack("!H", packet[6:8])[0] & 0x3fff, (packet[0] & 15) * 4
        if packet[9] != 6 or fragment:
            continue
        segment = packet[header:struct.unpack("!H", packet[2:4])[0]]
        if len(segment) < 20:
            continue
        sport, dport, sequence, acknowledged, offset, flags = struct.unpack("!HHIIBB", segment[:14])
        key = socket.inet_ntoa(packet[12:16]), sport, dport, socket.inet_ntoa(packet[16:20])
        connection = frozenset([key[:2], (key[3], dport)])
        if flags & RST or connection not in begun and flags & (SYN | ACK) != SYN:
            odd.add(connection)
        begun.add(connection)
        stream = streams.setdefault(key, {"connection": connection, "first": None, "bytes": {}, "syns": set()})
        if flags & SYN:
            back = streams.get((key[3], dport, sport, key[0]), stream)
            if flags & ACK and (acknowledged - 1) % 2**32 not in back["syns"]:
                odd.add(connection)
            stream["first"] = (sequence + 1) % 2**32
            stream["syns"].add(sequence)
        for number, byte in enumerate(segment[(offset >> 4) * 4:]):
            if stream["first"] is not None:
                stream["bytes"].setdefault((sequence + number - stream["first"]) % 2**32, byte)
    odd.update(stream["connection"] for stream in streams.values() if len(stream["syns"]) != 1)
    for key, stream in streams.items():
        if stream["connection"] not in odd and all(place in stream["bytes"] for place in range(len(stream["bytes"]))):
            yield key, bytes(stream["bytes"][place] for place in range(len(stream["bytes"])))


def capture_run(folder):
    rules = {1: b"HTTP/1\\.[01]", 2: b"\\A(GET|POST) [^\\r\\n]+ HTTP", 3: b"(?i)content-(type|length): *[a-z0-9]{2,}",
             4: b"\\A[\\x00-\\xff]{0,2}[\\x16G]", 5: b"[\\x00-\\xff]{30}"}
    text = "".join('alert tcp any any -> any any (sid:%d; pcre:"/%s/";)\n' % (sid, rule.decode().replace("\\A", "^"))
                   for sid, rule in rules.items())
    streams, expected = dict(streams_of(capture)), collections.Counter()
    for (source, sport, dport, _), data in streams.items():
        for sid, rule in rules.items():
            expected[sid, source, sport, dport] += bool(re.search(rule, data))
    ends = {key[:3] for key in streams}
    found = found_by_ids(folder, text, os.path.abspath(capture))
    ours = collections.Counter({key: count for key, count in found.items() if key[1:] in ends})
    compare("capture", ours, +expected)


def main():
    print("seed %d: SM_SEED=%d to repeat" % (seed, seed))
    with tempfile.TemporaryDirectory(prefix="sm-") as folder:
        for number in range(20 if os.environ.get("SM_FULL") else 3):
            random_run(folder, random.Random(seed + number))
        capture_run(folder)


main()
