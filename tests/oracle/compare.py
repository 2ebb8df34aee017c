#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-ratelimiter, alone, against the oracle: which packets pass, their bytes, their order, and the drop counts.

    compare.py --limiter PROGRAM [--policies N] [--seed N] FILE-OR-FOLDER...
    compare.py --limiter PROGRAM [--policies N] --traces FOLDER    (SM_TRACES overrides it, SM_FULL=1 means all policies)
    compare.py --limiter PROGRAM [--policies N] --synthetic [--seed N]

Exit status 0: all agree; 1: some do not; 77: there is nothing to compare.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter

import capture
import limiter
import synthetic


def single(per, rate, burst):
    return [{"name": "only", "per": per, "rate": rate, "burst": burst}]


POLICIES = [single(per, rate, burst)
            for per in ("flow", "source", "destination", "host-pair", "all")
            for rate, burst in (("10kbit", "3KiB"), ("1.234567Mbit", "16KiB"), ("3pps", "2"), ("40pps", "10"))]
POLICIES += [
    # Several limits, parents, marks; all partitioned by the host pair.
    [{"name": "a", "per": "flow", "rate": "20kbit", "burst": "4KiB", "parent": "b"},
     {"name": "b", "per": "host-pair", "rate": "50kbit", "burst": "8KiB"},
     {"name": "c", "per": "flow", "rate": "5pps", "burst": "3", "exceed": {"mark": {"dscp": "CS1"}}}],
    # Marks only, CE on what can carry it.
    [{"name": "ecn", "per": "destination", "rate": "5pps", "burst": "2", "exceed": {"mark": "ce"}},
     {"name": "af", "per": "destination", "rate": "2pps", "burst": "2", "exceed": {"mark": {"dscp": "AF21"}}}],
    # Delayed: with tokens to the last bit, in packets, behind one another, and with one that drops.
    [{"name": "s", "per": "flow", "rate": "16kbit", "burst": "2KiB", "exceed": {"shape": {"queue": "400ms"}}}],
    [{"name": "p", "per": "source", "rate": "7pps", "burst": "2", "exceed": {"shape": {"queue": "1s"}}},
     {"name": "q", "per": "source/29/64", "rate": "33.333kbit", "burst": "3KiB", "exceed": {"shape": {"queue": "250ms"}}},
     {"name": "d", "per": "source", "rate": "50pps", "burst": "9"}],
    # The same as shared limits.
    [{"name": "s", "per": "source", "rate": "30kbit", "burst": "4KiB", "parent": "site"},
     {"name": "d", "per": "destination", "rate": "10pps", "burst": "5", "exceed": {"shape": {"queue": "100ms"}}},
     {"name": "site", "per": "all", "rate": "100kbit", "burst": "1514B", "exceed": {"shape": {"queue": "2s"}}}],
    # One key cannot partition these: some are shared, and one replica alone is exact all the same.
    [{"name": "s", "per": "source", "rate": "30kbit", "burst": "4KiB", "parent": "site"},
     {"name": "d", "per": "destination", "rate": "10pps", "burst": "5"},
     {"name": "f", "per": "flow", "rate": "10kbit", "burst": "3KiB", "exceed": {"mark": {"dscp": 7}}},
     {"name": "site", "per": "all", "rate": "200kbit", "burst": "32KiB"}],
    # Prefixes of addresses; the shortest one partitions all.
    [{"name": "host", "per": "source", "rate": "20kbit", "burst": "4KiB", "parent": "net"},
     {"name": "net", "per": "source/29/64", "rate": "40kbit", "burst": "6KiB"},
     {"name": "wide", "per": "source/31", "rate": "10pps", "burst": "5"}],
    single("destination/30/127", "30kbit", "4KiB"),
    # Many rates under one name: the longest prefix counts. Each prefix has a bucket, or each address in it.
    [{"name": "table", "rate": "20kbit", "burst": "4KiB", "parent": "up",
      "prefixes": {"source": ["10.0.0.0/30", "10.0.0.2 5kbit", "10.0.0.0/8 30kbit 2KiB", "2001:db8::/64 1kbit",
                              "2001:db8::2/127"]}},
     {"name": "up", "per": "source/8/16", "rate": "60kbit", "burst": "9KiB"}],
    [{"name": "table", "rate": "10pps", "burst": "4", "prefixes": {"destination": ["0.0.0.0/0 20pps", "10.0.0.4/31 2pps 2"]}},
     {"name": "each", "per": "destination", "rate": "9kbit", "burst": "2KiB", "prefixes": {"destination": ["10.0.0.0/31"]}}],
    # Guarantees and ceilings: what the root has left is borrowed, through two levels.
    [{"name": "root", "per": "all", "rate": "60kbit", "burst": "40KiB"},
     {"name": "v4", "per": "all", "rate": "20kbit", "ceil": "50kbit", "burst": "8KiB", "parent": "root",
      "prefixes": {"source": ["0.0.0.0/0"]}},
     {"name": "v6", "per": "all", "rate": "30kbit", "burst": "6KiB", "parent": "root", "prefixes": {"source": ["::/0"]}},
     {"name": "host", "rate": "2kbit", "ceil": "40kbit", "burst": "2KiB", "parent": "v4",
      "prefixes": {"source": ["10.0.0.0/30 4kbit 3KiB 10kbit", "10.0.0.4/32"]}},
     {"name": "flow", "per": "flow", "rate": "1kbit", "ceil": "5kbit", "burst": "2000B", "exceed": {"mark": {"dscp": "CS1"}},
      "parent": "v6"}],
    # All partitioned by the net.
    [{"name": "host", "per": "source", "rate": "3pps", "ceil": "20pps", "burst": "3", "parent": "net"},
     {"name": "net", "per": "source/29/120", "rate": "25pps", "burst": "9"}],
    # Not of every packet.
    [{"name": "tag", "per": "vlan", "rate": "20kbit", "burst": "4KiB"},
     {"name": "tun", "per": "tunnel", "rate": "10kbit", "burst": "4KiB"}],
    [{"name": "in", "per": "inner-source", "rate": "4kbit", "burst": "3KiB", "parent": "net"},
     {"name": "to", "per": "inner-destination/30/127", "rate": "2pps", "burst": "2"},
     {"name": "net", "per": "tunnel", "rate": "10kbit", "burst": "8KiB"}],
]
FILTERED = [{"name": "t", "per": "flow", "rate": "20kbit", "burst": "4KiB", "match": "tcp", "parent": "h"},
            {"name": "u", "per": "source", "rate": "5pps", "burst": "3", "match": "udp"},
            {"name": "h", "per": "host-pair", "rate": "40kbit", "burst": "8KiB", "match": "ip6"}]


def run(program, policy, source, folder):
    """Run the limiter: (its output as a Capture, its drop counts)."""
    paths = [os.path.join(folder, name) for name in ("policy.yaml", "out.pcap", "report.json")]
    for path in paths + [paths[1] + ".partial"]:
        if os.path.exists(path):
            os.unlink(path)
    with open(paths[0], "w") as file:
        json.dump({"limits": policy}, file)  # JSON is YAML
    done = subprocess.run([program, "--policy", paths[0], "--in", source, "--out", paths[1], "--report", paths[2]],
                          capture_output=True, text=True, timeout=300)
    output = paths[1] if os.path.exists(paths[1]) else paths[1] + ".partial"
    if "Sanitizer" in done.stderr or "runtime error:" in done.stderr:
        raise RuntimeError(done.stderr)
    if not os.path.exists(output):
        raise RuntimeError("exit %d, no output: %s" % (done.returncode, done.stderr.strip()))
    dropped = {}
    if os.path.exists(paths[2]):
        with open(paths[2]) as file:
            dropped = json.load(file)["packets"]["dropped"]
    return capture.read(output), dropped, done


def on_file(packet):
    """A packet as classic pcap can hold it: its seconds wrap in 2106."""
    return packet._replace(stamp=packet.stamp % (2**32 * 10**9))


def first_difference(expected, got):
    for number, (a, b) in enumerate(zip(expected, got), 1):
        if on_file(a[1]) != b:
            return "output packet %d: expected input packet %d (%s), got %d bytes at %d" % (
                number, a[0], "same bytes" if a[1].data == b.data else "other bytes", b.caplen, b.stamp)
    if len(expected) != len(got):
        return "%d packets expected, %d came" % (len(expected), len(got))
    return None


def compare(program, policy, source, trace, rows, folder):
    """None, or what is different."""
    expected, dropped = [], Counter()
    for number, ((packet, _, now), (verdict, data, leaves)) in enumerate(
            zip(rows, limiter.verdicts(policy, trace.linktype, rows)), 1):
        if data is None:
            dropped[verdict] += 1
        else:
            stamp = packet.stamp if leaves == now else (leaves if trace.nanoseconds else leaves // 1000 * 1000)
            expected.append((leaves, number, packet._replace(data=data, stamp=stamp)))
    expected = [(number, packet) for _, number, packet in sorted(expected, key=lambda row: row[:2])]
    output, counted, done = run(program, policy, source, folder)
    difference = first_difference(expected, output.packets)
    if not difference and done.returncode != (1 if trace.damage else 0):
        difference = "exit %d (%s); damage: %s" % (done.returncode, done.stderr.strip(), trace.damage)
    if not difference and counted and {k: v for k, v in counted.items() if v} != dict(dropped):
        difference = "drops: expected %s, reported %s" % (dict(dropped), counted)
    return difference


def files_below(paths):
    for path in paths:
        if not os.path.isdir(path):
            yield path
        for folder, _, names in os.walk(path):
            for name in names:
                if name.split(".")[-1] in ("pcap", "pcapng", "cap") or ".pcap" in name:
                    yield os.path.join(folder, name)


def chosen(trace, args, source):
    """The policies for a file: all, or a sample that differs from file to file."""
    policies = POLICIES + ([FILTERED] if trace.linktype == 1 else [])
    if 0 < args.policies < len(policies):
        policies = random.Random("%d %s" % (args.seed, os.path.basename(source))).sample(policies, args.policies)
    return policies


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limiter", required=True)
    parser.add_argument("--policies", type=int, default=0, help="so many for each file, chosen at random; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--synthetic", action="store_true", help="captures made on the spot")
    parser.add_argument("--traces", help="a folder; the project's own samples where it is missing")
    parser.add_argument("--packets-max", type=int, default=0, help="skip larger captures")
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    if args.traces:
        folder = os.environ.get("SM_TRACES", args.traces)
        if not os.path.isdir(folder):
            folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "samples")
            print("no folder of captures beside the project: only its own samples are compared")
        args.paths.append(folder)
        args.policies = 0 if os.environ.get("SM_FULL") == "1" else args.policies
        args.paths = [path for path in args.paths if os.path.exists(path)]
    runs = failures = files = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = list(files_below(args.paths))
        if args.synthetic:
            paths += synthetic.write_all(folder, args.seed)
        for source in sorted(paths):
            try:
                trace = capture.read(source)
            except (capture.Unreadable, OSError, EOFError):
                skipped += 1
                continue
            if args.packets_max and len(trace.packets) > args.packets_max:
                skipped += 1
                continue
            rows = limiter.dissected(trace)
            files += 1
            for policy in chosen(trace, args, source):
                runs += 1
                try:
                    difference = compare(args.limiter, policy, source, trace, rows, folder)
                except (RuntimeError, capture.Unreadable) as error:
                    difference = str(error)
                if difference:
                    failures += 1
                    print("%s\n  %s\n  %s" % (source, json.dumps(policy), difference), flush=True)
    print("%d files, %d runs, %d differ, %d files could not be read (seed %d)" %
          (files, runs, failures, skipped, args.seed))
    if runs == 0:
        sys.exit(77)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
