#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a rate limiter must do to a capture, in rational arithmetic and a few lines.

    limiter.py POLICY CAPTURE

POLICY is JSON, in a file or as the argument itself: a list of limits with the keys of sm-ratelimiter's policy file
(name, per, rate, ceil, burst, exceed, parent, match, prefixes), match being absent or one of ip, ip6, tcp, udp, and prefixes
a list, not the name of a file. Prints one line a packet:
its number, `pass`, `mark`, or the name of what drops it, and the nanoseconds for which it is delayed.
"""

import ipaddress
import json
import math
import re
import sys
from fractions import Fraction

import capture
import dissect

RATES = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "pps": 1, "kpps": 10**3, "Mpps": 10**6}
TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "": 1}
CODE_POINTS = {"CS%d" % i: 8 * i for i in range(8)}
CODE_POINTS.update({"AF%d%d" % (i, j): 8 * i + 2 * j for i in range(1, 5) for j in range(1, 4)})
CODE_POINTS["EF"] = 46


def quantity(text, units):
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    return Fraction(number) * units[unit], unit


def member_of(given, own):
    """What a prefix has for a limit of its own."""
    return Limit({**given, "prefixes": {}, **dict(zip(("rate", "burst", "ceil"), own))})


class Bucket:
    def __init__(self, rate, burst):
        self.rate, self.burst, self.of = rate, burst, {}

    def tokens(self, key, now):
        if key not in self.of:
            return self.burst
        tokens, time = self.of[key]
        return min(self.burst, tokens + self.rate * Fraction(now - time, 10**9))

    def take(self, key, now, cost):
        self.of[key] = (self.tokens(key, now) - cost, now)


class Limit:
    def __init__(self, given):
        self.name, self.per = given["name"], given.get("per", "all")
        rate, unit = quantity(given["rate"], RATES)
        self.packets = unit.endswith("pps")
        self.rate = rate if self.packets else rate / 8  # packets or bytes a second
        self.burst = quantity(given["burst"], SIZES)[0]
        self.match, self.parent = given.get("match"), given.get("parent")
        self.exceed = given.get("exceed", "drop")
        # What it may have at most and, if that is more than its rate, what it is sure of: key -> (tokens, time).
        ceil = quantity(given["ceil"], RATES)[0] if "ceil" in given else None
        self.borrows = ceil is not None
        self.most = Bucket(self.rate if ceil is None else ceil if self.packets else ceil / 8, self.burst)
        self.sure = Bucket(self.rate, self.burst) if self.borrows else self.most
        self.reserve = 0
        self.shapes = isinstance(self.exceed, dict) and "shape" in self.exceed
        if self.shapes:
            self.queue = quantity(self.exceed["shape"]["queue"], TIMES)[0]
        self.schedules = {}  # of a limit that shapes: key -> (last departure, what all have cost, bound)

        self.members, self.lengths = {}, set()
        for side, lines in given.get("prefixes", {}).items():
            for line in lines:
                net = ipaddress.ip_network(line.split()[0])
                self.side = side
                self.lengths.add(net.prefixlen)
                self.members[net.version, net.prefixlen, net.network_address.packed] = member_of(given, line.split()[1:])

    def member(self, keys):
        """The limit itself or, if it has prefixes, the one of the longest that the packet is in; None: it is in none."""
        if not self.members:
            return self
        for bits in sorted(self.lengths, reverse=True):
            family, address = dissect.narrowed(keys[self.side], bits, bits)
            if (family, bits, address) in self.members:
                return self.members[family, bits, address]
        return None

    def key(self, keys):
        """The packet's key at this limit; None: it has none, and the limit does not apply."""
        by, *bits = self.per.split("/")
        if not bits or keys[by] is None:
            return keys[by]
        return dissect.narrowed(keys[by], int(bits[0]), int(bits[1]) if len(bits) > 1 else 128)

    def cost(self, packet):
        return 1 if self.packets else packet.len

    def departure(self, key, now, cost):
        """The first nanosecond, not before the last departure, at which no interval since any departure would have more
        than rate x time + burst. None: there is none, or it is too late."""
        if cost > self.burst:
            return None
        last, before, bound = self.schedules.get(key, (0, 0, None))
        at = max(now, last)
        if bound is not None:
            at = max(at, math.ceil(bound + (before + cost - self.burst) * 10**9 / self.rate))
        return at if at - now <= self.queue else None

    def depart(self, key, at, cost):
        last, before, bound = self.schedules.get(key, (0, 0, None))
        start = at - before * 10**9 / self.rate  # of the intervals that begin with this departure
        self.schedules[key] = (at, before + cost, start if bound is None else max(bound, start))


def matches(limit, linktype, data):
    """The few filters needed, as libpcap compiles them for Ethernet: it does not look behind tags."""
    if not limit.match:
        return True
    if linktype != 1:
        raise ValueError("filters are only known for Ethernet here")
    kind = dissect.number16(data, 12) if len(data) >= 14 else None
    if limit.match in ("ip", "ip6"):
        return kind == {"ip": 0x0800, "ip6": 0x86DD}[limit.match]
    protocol = {"tcp": 6, "udp": 17}[limit.match]
    if kind == 0x0800:
        return len(data) > 23 and data[23] == protocol
    if kind == 0x86DD and len(data) > 20:
        return data[20] == protocol or (data[20] == 44 and len(data) > 54 and data[54] == protocol)
    return False


def traffic_class(ip, data):
    return data[ip.start + 1] if ip.family == 4 else (data[ip.start] << 4 | data[ip.start + 1] >> 4) & 255


def drops(limit, ip, data):
    return limit.exceed == "drop" or limit.shapes or (limit.exceed == {"mark": "ce"} and traffic_class(ip, data) & 3 == 0)


def marked(limit, ip, data):
    """The packet's bytes with the mark of `limit`. The checksum is kept as right, or as wrong, as it was."""
    old, at = traffic_class(ip, data), ip.start
    mark = limit.exceed["mark"]
    if mark == "ce":
        new = old | 3
    else:
        point = mark["dscp"]
        new = CODE_POINTS.get(point, point) << 2 | old & 3
    data = bytearray(data)
    if ip.family == 6:
        data[at] = data[at] & 0xF0 | new >> 4
        data[at + 1] = (new & 15) << 4 | data[at + 1] & 15
    elif new != old:
        data[at + 1] = new
        # In ones' complement (modulo 65535) the checksum falls by as much as the header's sum rises.
        value = (dissect.number16(data, at + 10) - (new - old)) % 65535
        data[at + 10], data[at + 11] = value >> 8, value & 255
    return bytes(data)


def applicable(limits, linktype, data, keys):
    names = set()
    for limit in limits:
        if matches(limit, linktype, data) and limit.member(keys):
            while limit and limit.name not in names:
                names.add(limit.name)
                limit = next((other for other in limits if other.name == limit.parent), None)
    return [limit.member(keys) for limit in limits if limit.name in names and limit.member(keys)]


def reserve_of(limit, limits):
    """What borrowers leave of a limit's tokens: its children's bursts, if there is a borrower among them."""
    children = [child for child in limits if child.parent == limit.name]
    reserve = 0
    if any(child.borrows for child in children):
        for child in children:
            if child.packets == limit.packets:
                reserve += max([member.burst for member in child.members.values()] or [child.burst])
    for member in limit.members.values():
        member.reserve = reserve
    return reserve


def children_first(limits):
    """The order in which limits are asked: that of the file, but each behind those that have it as their parent."""
    order = []

    def place(limit):
        if limit not in order:
            for child in limits:
                if child.parent == limit.name:
                    place(child)
            order.append(limit)

    for limit in limits:
        place(limit)
    return order


def decide(limits, linktype, packet, keys, now):
    """(verdict, bytes, departure) of one IP packet."""
    using = [l for l in applicable(limits, linktype, packet.data, keys) if l.key(keys) is not None]
    lacking, taking, asked_by_borrowers, departing = [], [], set(), []
    for limit in using:
        cost, key = limit.cost(packet), limit.key(keys)
        if limit.shapes:
            departing.append((limit, key, limit.departure(key, now, cost), cost))
            if departing[-1][2] is None:
                lacking.append(limit)
            continue
        needed = cost + (limit.reserve if limit.name in asked_by_borrowers else 0)
        within = limit.sure.tokens(key, now) >= needed
        if limit.most.tokens(key, now) < needed:
            lacking.append(limit)
            within = False
        else:
            taking.append((limit.most, key, cost))
            if within and limit.borrows:
                taking.append((limit.sure, key, cost))
        if not within:
            asked_by_borrowers.add(limit.parent)
    for limit in lacking:
        if drops(limit, keys["ip"], packet.data):
            return "limit:" + limit.name, None, now
    for bucket, key, cost in taking:
        bucket.take(key, now, cost)
    for limit, key, at, cost in departing:
        limit.depart(key, at, cost)
    leaves = max([now] + [at for _, _, at, _ in departing])
    if lacking:
        return "mark", marked(lacking[0], keys["ip"], packet.data), leaves
    return "pass", packet.data, leaves


def dissected(trace):
    """[(packet, keys or None, packet time)], to be used for several policies."""
    dissector = dissect.Dissector(trace.linktype)
    now, rows = 0, []
    for packet in trace.packets:
        now = max(now, packet.stamp)
        rows.append((packet, dissector.keys(packet.data, packet.len, now), now))
    return rows


def verdicts(policy, linktype, rows):
    limits = children_first([Limit(given) for given in policy])
    for limit in limits:
        limit.reserve = reserve_of(limit, limits)
    for packet, keys, now in rows:
        yield decide(limits, linktype, packet, keys, now) if keys else ("pass", packet.data, now)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    text = sys.argv[1]
    if not text.lstrip().startswith("["):
        with open(text) as file:
            text = file.read()
    trace = capture.read(sys.argv[2])
    rows = dissected(trace)
    for number, (row, (verdict, _, leaves)) in enumerate(zip(rows, verdicts(json.loads(text), trace.linktype, rows)), 1):
        print(number, verdict, leaves - row[2])


if __name__ == "__main__":
    main()
