#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The port of p0f says what p0f says: on the same captures, the same log, but for the order of its lines. Alone; in the
test kit with 1 to 4 replicas, split, merged, moved, copied, killed and upgraded at random.

usage: compare.py --original P0F --fingerprints FILE --programs FOLDER --runner RUN_P0F [--seeds N] CAPTURE...

SM_SEED sets the first seed; SM_FULL=1 takes ten times as many.
"""
import argparse
import collections
import os
import random
import struct
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--original", required=True)
parser.add_argument("--fingerprints", required=True)
parser.add_argument("--programs", required=True)
parser.add_argument("--runner", required=True)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("captures", nargs="+")
options = parser.parse_args()

# The original compares names beyond the end of the shorter one.
environment = dict(os.environ, TZ="UTC")
for variable in ("ASAN_OPTIONS", "TSAN_OPTIONS"):
    environment[variable] = os.environ.get(variable, "") + ":strict_memcmp=0"
failures = 0


def run(*command):
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=250)
    if result.returncode != 0:
        sys.exit("FAILED: %s: %s" % (" ".join(command), result.stderr.decode("latin-1")))
    return result.stdout.decode("latin-1"), result.stderr.decode("latin-1")


def check(what, log, expected):
    global failures
    lines, wanted = collections.Counter(log.splitlines()), collections.Counter(expected)
    missing, more = sorted((wanted - lines).elements()), sorted((lines - wanted).elements())
    print("%s: %s: %d lines" % ("FAILED" if missing or more else "ok", what, sum(lines.values())), flush=True)
    for line in ["    missing: " + line for line in missing][:5] + ["    too many: " + line for line in more][:5]:
        print(line)
    failures += bool(missing or more)


def segment(ends, sequence, flags, payload=b"", ticks=0):
    """An IPv4 packet with a TCP segment; ends: address and port of who sends it, and of the other."""
    option = b"\x01\x01\x08\x0a" + struct.pack(">II", ticks, 0)
    if flags & 2:
        option = b"\x02\x04\x05\xb4" + option
    (source, port), (target, target_port) = ends
    tcp = struct.pack(">HHIIBBHHH", port, target_port, sequence, 1 if flags & 16 else 0, (20 + len(option)) // 4 << 4,
                      flags, 29200, 0, 0) + option + payload
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0, source, target) + tcp


def pieces(text, choice):
    while text:
        length = choice.randint(1, choice.choice((5, 60, 1400)))
        yield text[:length]
        text = text[length:]


def talk(choice, number):
    """The packets of a connection: a request and a response, cut anywhere, at times with more than HTTP has room for."""
    client = (bytes((10, 0, 0, choice.randint(1, 9))), 1024 + number)
    server = (bytes((10, 0, 1, choice.randint(1, 3))), 80)
    long = b"X-Long: " + b"x" * choice.choice((3, 200, 1023, 1025, 1100)) + b"\r\n"
    agents = (b"Mozilla/5.0 (X11; Linux x86_64)", b"curl/7.88", b"Mozilla/5.0 (Windows NT 6.1)")
    request = b"GET /%d HTTP/1.1\r\nHost: a\r\nUser-Agent: %s\r\n%sAccept-Language: en\r\n\r\n" % (
        number, choice.choice(agents), long * choice.randint(0, 2))
    response = b"HTTP/1.%d 200 OK\r\nServer: %s\r\n%sDate: Sat, 21 Nov 2026 02:20:%02d GMT\r\n\r\nbody" % (
        choice.randint(0, 1), choice.choice((b"Apache/2.2", b"nginx")), long * choice.randint(0, 1), choice.randint(0, 59))
    ticks = choice.randint(1, 1 << 30)
    yield segment((client, server), 99, 2, ticks=ticks)
    yield segment((server, client), 499, 18, ticks=ticks)
    for ends, sequence, text in (((client, server), 100, request), ((server, client), 500, response)):
        for piece in pieces(text, choice):
            ticks += choice.randint(0, 40)
            yield segment(ends, sequence, 24, piece, ticks)
            sequence += len(piece)
    yield segment((client, server), 100 + len(request), 17, ticks=ticks)


def make(target, choice):
    """A capture of such connections, a few at a time."""
    talks = [list(talk(choice, number)) for number in range(150)]
    now, under_way = 1700000000000, []
    with open(target, "wb") as file:
        file.write(struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 101))
        while talks or under_way:
            while talks and len(under_way) < 5:
                under_way.append(talks.pop(0))
            packet = choice.choice(under_way).pop(0)
            under_way = [packets for packets in under_way if packets]
            now += choice.randint(0, 5)
            file.write(struct.pack("<IIII", now // 1000, now % 1000 * 1000, len(packet), len(packet)) + packet)


def alone(capture, folder):
    notes, log = os.path.join(folder, "notes.pcap"), os.path.join(folder, "alone.log")
    for program, source, target in (("sm-p0f", capture, ["--out", notes]), ("sm-p0f-hosts", notes, ["--log", log])):
        run(os.path.join(options.programs, program), "--fingerprints", options.fingerprints, "--in", source, *target)
    text = open(log, encoding="latin-1").read()
    os.remove(log)
    return text


def original(capture, folder):
    log = os.path.join(folder, "original.log")
    if os.path.exists(log):
        os.remove(log)
    run(options.original, "-f", options.fingerprints, "-r", capture, "-o", log, "-m", "100000,500000")
    return open(log, encoding="latin-1").read().splitlines()


first = int(os.environ.get("SM_SEED", "0")) or 1
count = options.seeds * (10 if os.environ.get("SM_FULL") == "1" else 1)
with tempfile.TemporaryDirectory() as work:
    made = os.path.join(work, "made.pcap")
    make(made, random.Random(first))
    for path in options.captures + [made]:
        expected = original(path, work)
        name = os.path.basename(path)
        if not expected:
            sys.exit("FAILED: p0f says nothing of " + name)
        check(name + ", alone", alone(path, work), expected)
        for seed in range(first, first + count):
            choice = random.Random(seed)
            replicas, kills, upgrade = choice.randint(1, 4), choice.choice((0, 100, 400)), seed % 2  # else none of few
            log, said = run(options.runner, options.fingerprints, path, str(seed), str(replicas), str(kills),
                            str(upgrade))
            ran = "; hosts: ".join(line for line in said.splitlines() if " in, " in line)
            check("%s, seed %d: %d replicas, kills 1/%d, upgrade %d; flows: %s" %
                  (name, seed, replicas, kills, upgrade, ran), log, expected)
sys.exit(failures != 0)
