#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Whether an output keeps to its limits, whoever made it and in how many parts.

    conserved.py POLICY INPUT OUTPUT [--least 0.98]

POLICY is JSON as for limiter.py: limits that drop, without `match` and `parent`. OUTPUT has the packets of INPUT that
passed, in the order of INPUT. For every key of every limit, over every interval of packet time, what passed is at most
rate * t + burst. And what passed in all is at least so much of what one unsplit limiter passes.
"""

import argparse
import json
import sys

import capture
import limiter


class Mismatch(Exception):
    """The output is not a part of the input."""


def passed_rows(rows, output):
    """The rows of the input that the output has."""
    rows = iter(rows)
    for packet in output:
        for row in rows:
            if row[0] == packet:
                yield row
                break
        else:
            raise Mismatch("a packet at %d ns is not in the input, or not in its order" % packet.stamp)


def excess(limit, rows):
    """The first packet that makes some interval too full: a bucket run over what passed goes below zero."""
    for packet, keys, now in rows:
        if not keys:
            continue
        key = keys[limit.per]
        limit.most.take(key, now, limit.cost(packet))
        if limit.most.of[key][0] < 0:
            return "%s: above its limit by %s with the packet at %d ns" % (limit.name, float(-limit.most.of[key][0]), now)
    return None


def cost(rows, packets):
    return sum(1 if packets else packet.len for packet, keys, _ in rows if keys)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("policy")
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--least", type=float, default=0.98)
    args = parser.parse_args()
    policy = json.loads(args.policy)
    trace = capture.read(args.input)
    rows = limiter.dissected(trace)
    try:
        passed = list(passed_rows(rows, capture.read(args.output).packets))
    except Mismatch as error:
        sys.exit(str(error))
    for given in policy:
        wrong = excess(limiter.Limit(given), passed)
        if wrong:
            sys.exit(wrong)
    unsplit = [row for row, (_, data, _) in zip(rows, limiter.verdicts(policy, trace.linktype, rows)) if data is not None]
    packets = all(limiter.Limit(given).packets for given in policy)
    share = cost(passed, packets) / max(1, cost(unsplit, packets))
    print("%d of %d packets passed, %.4f of what one limiter passes" % (len(passed), len(rows), share))
    sys.exit(0 if share >= args.least else 1)


if __name__ == "__main__":
    main()
