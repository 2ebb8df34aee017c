#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Each way of sharing a limit, once more and by other means: follows what drl_trace did, and expects the same.

Verdicts, allowances and every message are compared. Shares are found by sorting instead of by iteration, sums anew
instead of kept. Where the limiter draws (GRD), frequencies are compared.

usage: drl_model.py DRL_TRACE [SEED]
"""

import math
import subprocess
import sys
import time

MEMORY = 1 / math.log(10)
SUM, REPORT, PRESSED, GRANT = range(4)


def close(a, b, scale=1.0):
    return a == b or abs(a - b) <= 1e-6 * max(abs(a), abs(b), scale)


class Random:
    def __init__(self, seed):
        self.state = seed

    def draw(self):
        mask = (1 << 64) - 1
        self.state ^= self.state >> 12
        self.state ^= self.state << 25 & mask
        self.state ^= self.state >> 27
        return ((self.state * 2685821657736338717 & mask) >> 11) / 2**53


class Rate:
    """What is older than a second counts a tenth."""

    def __init__(self):
        self.bytes = self.rate = 0.0

    def estimate(self, seconds):
        keep = 0.1**seconds
        self.rate = keep * self.rate + (1 - keep) * self.bytes / seconds
        self.bytes = 0.0


class Bucket:
    def __init__(self, depth):
        self.level, self.time = depth, 0

    def fill(self, rate, depth, now):
        self.level = min(self.level + rate * (now - self.time) / 1e9, depth)
        self.time = now

    def take(self, size, verdict):
        """Where it is too close to call: as it was."""
        conforms = verdict if abs(self.level - size) < 1e-3 else self.level >= size
        self.level -= size if conforms else 0
        return conforms


class Limiter:
    """What the paper's four have in common: each tells each its value."""

    def __init__(self, who, count, rate, burst):
        self.who, self.count, self.rate, self.burst = who, count, rate, burst
        self.arrived, self.passed, self.bucket = Rate(), Rate(), Bucket(burst)
        self.local, self.drop, self.others, self.sent = rate / count, 0.0, {}, 0

    def packet(self, now, flow, size, verdict):
        self.arrived.bytes += size
        expected = self.conforms(now, flow, size, verdict)
        self.passed.bytes += size if expected else 0
        return expected

    def conforms(self, now, flow, size, verdict):
        self.bucket.fill(self.local, self.burst, now)
        return self.bucket.take(size, verdict)

    def interval(self, now, seconds):
        self.arrived.estimate(seconds)
        self.passed.estimate(seconds)
        own = self.share(sum(self.others.values()), seconds)
        if own is None:
            return []
        self.sent += 1
        return [(self.who, self.sent, to, SUM, own, 1.0, 0.0) for to in range(self.count) if to != self.who]

    def receive(self, now, message):
        self.others[message[0]] = message[4]
        return []

    def correct(self, local):
        """What is as good as the model's own is taken over, or the little that they differ by adds up."""
        self.local = local


class Split(Limiter):
    def share(self, remote, seconds):
        return None


class Gtb(Limiter):
    def share(self, remote, seconds):
        self.local = max(self.rate - remote, 0)
        return self.passed.rate


class Grd(Limiter):
    expected = variance = dropped = 0

    def conforms(self, now, flow, size, verdict):
        return verdict if self.drop > 0 else True  # drawn

    def packet(self, now, flow, size, verdict):
        Grd.expected += self.drop
        Grd.variance += self.drop * (1 - self.drop)
        Grd.dropped += not verdict
        return super().packet(now, flow, size, verdict)

    def share(self, remote, seconds):
        demand = self.arrived.rate + remote
        self.drop = max(1 - self.rate / demand, 0) if demand > 0 else 0
        return self.arrived.rate


class Fps(Limiter):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.flows, self.weight, self.limited = {}, 0.0, False

    def conforms(self, now, flow, size, verdict):
        self.flows.setdefault(flow, Rate()).bytes += size
        return super().conforms(now, flow, size, verdict)

    def share(self, remote, seconds):
        for flow in self.flows.values():
            flow.estimate(seconds)
        fastest = max((flow.rate for flow in self.flows.values()), default=0)
        demand, ideal = self.arrived.rate, 0.0
        limited = demand >= self.local * (0.97 if self.limited else 1.03)
        if fastest > 0 and limited:
            ideal = min(max(self.local, self.passed.rate), demand) / fastest
        elif fastest > 0:
            worth = demand / fastest
            ideal = worth
            if remote > 0 and demand < self.rate:
                ideal = min(worth, max(demand * remote / (self.rate - demand), 0.003 * worth))
        self.weight = ideal if limited == self.limited else (self.weight + ideal) / 2
        self.limited = limited
        self.local = (self.rate * self.weight / (remote + self.weight) if remote + self.weight > 0
                      else self.rate / self.count)
        if demand < 100:
            self.bucket.level = max(self.bucket.level, min(3000, self.burst))
        return self.weight


class Member:
    """What the home knows of a limiter."""

    def __init__(self):
        self.sent = self.heard_at = self.granted_at = 0
        self.allowance, self.demand, self.weight, self.passed = 4.0, 0.0, 0.0, 0.0
        self.rate, self.granted, self.pressed, self.known = 0.0, 0.0, False, False

    def most(self):
        return self.demand * (2 if self.pressed else 1.2)

    def foresee(self):
        self.rate = self.granted if self.pressed else min(self.granted, self.demand)


class Pool(Limiter):
    ALONE, MESSAGES, PERIODIC = 1500000000, 6.9, 0.75

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.random, self.flows, self.flow_share = Random(1), {}, math.inf
        self.places, self.part, self.level = {}, math.inf, None
        self.exchanges = self.MESSAGES / 2 * self.count / (self.count - 1)
        self.period = 1 / (self.PERIODIC * self.exchanges)
        self.demand = self.quick = self.tick = self.all = 0.0
        self.since = [0.0, 0.0, 0.0]  # arrived, dropped, passed since the last report
        self.expected = self.expected_since = 0.0
        self.allowance, self.report_at, self.granted_at, self.pressed = 4.0, 0, 0, False
        self.shape()
        self.members = [Member() for _ in range(self.count)] if self.who == 0 else None
        self.excess, self.flow_rate, self.spare = 0.0, 0.0, self.rate / self.count

    def shape(self):
        self.depth = min(self.burst, max(30000, self.burst * self.local / self.rate))
        self.early = min(0.8 * self.depth, max(15000, 0.015 * self.local))

    def refilled(self):
        """Where nobody is, the bucket is filled all the same."""
        return max(self.local, min(30000, self.rate / self.count)) if self.demand < 2000 else self.local

    def fill(self, now):
        """What was taken since the last time makes no room yet."""
        self.level += min(self.filled_at_rate * (now - self.filled_at) / 1e9, self.room)
        self.room, self.filled_at = max(self.filled_to - self.level, 0), now

    def allow(self, now):
        self.fill(now)
        self.filled_at_rate, self.filled_to = math.floor(self.refilled() * 8) / 8, self.depth
        self.level = min(self.level, self.depth)
        self.room = self.depth - self.level

    def correct(self, local):
        super().correct(local)
        if self.level is not None:
            self.filled_at_rate = math.floor(self.refilled() * 8) / 8

    def conforms(self, now, key, size, verdict):
        if self.level is None:
            self.level = self.filled_at = self.filled_at_rate = self.filled_to = self.room = 0
            self.allow(0)
        self.fill(now)
        if key not in self.places:
            mask = (1 << 64) - 1
            name = (key ^ key >> 32) * 0x9E3779B97F4A7C15 & mask
            self.places[key] = [0, 0, {(name >> 32 | 1) % 2**16}, -math.inf]
        place = self.places[key]  # sent, as published; since then; what may be owed; when it lost last
        place[1] += size
        may_pass = self.level >= size - 1e-3
        may_lose = self.level < size + 1e-3
        fits = [(loses, owed) for loses, owed in self.early_drop(place, now)
                if (may_pass and not loses if verdict else may_lose or loses)]
        if not fits:
            return not verdict
        place[2] = {owed for _, owed in fits}
        if verdict:
            self.level -= size
        else:
            place[3] = now >> 20
        return verdict

    def early_drop(self, place, now):
        """Whether it is dropped early, and what its flow owes then, in 2^-16; both ways where it is too close to call."""
        sent, part, found = place[0] + place[1], self.part, set()

        def settled(true, close, loses):
            if true or close:
                found.update((loses, owed) for owed in place[2])
            return true and not close

        if settled(self.level >= self.early, abs(self.level - self.early) < 0.01, False):
            return found
        if (now >> 20) - place[3] < 96 and settled(sent <= 1.2 * part, abs(sent - 1.2 * part) < 2, False):
            return found
        low, much = self.early / 2 - self.level, sent - 0.9 * part
        if settled(low > 0 and much > 0, low > -0.01 and much > -1 and (low < 0.01 or much < 1), True):
            return found
        if settled(sent <= part, abs(sent - part) < 1, False):
            return found
        due = int(min(max(3 * (1 - self.level / self.early) * (1 - part / sent), 0), 1) * 65535)
        for owed in place[2]:
            found.update((wraps, owed + due - 2**16 * wraps) for wraps in
                         {owed + due - 100 >= 2**16, owed + due + 100 >= 2**16})
        return found

    def packet(self, now, flow, size, verdict):
        expected = super().packet(now, flow, size, verdict)
        self.tick += size
        self.all += size if expected else 0
        for i, counts in enumerate((True, not expected, expected)):
            self.since[i] += size if counts else 0
        return expected

    def count_flows(self, now):
        for key, place in list(self.places.items()):
            if place[1] > 0:
                self.flows[key] = [self.flows.get(key, [0.0])[0] + place[1], now]
            elif key not in self.flows:
                del self.places[key]

    def publish(self, now):
        if self.level is None:
            return
        self.allow(now)
        self.part = math.floor(self.flow_share) if self.flow_share < math.inf else math.inf
        for key, place in self.places.items():
            place[0], place[1] = math.floor(self.flows.get(key, [0.0])[0]), 0

    def look(self, now, seconds):
        for key, flow in list(self.flows.items()):
            stopped = (now - flow[1]) / 1e9 > 0.1 + 4 * 1500 * MEMORY / flow[0]
            flow[0] *= 0.1 ** (seconds / 0.1 if stopped else seconds)
            if flow[0] < 1:
                del self.flows[key]
        self.flow_share = self.fair(self.local * MEMORY)
        self.shape()
        keep = math.exp(-seconds / 0.03)
        last = self.tick / seconds
        self.quick = keep * self.quick + (1 - keep) * last
        self.tick = 0.0
        self.allowance = min(self.allowance + self.exchanges * seconds, 4)
        self.expected_since += self.expected * seconds
        off = self.since[2] - self.expected_since
        surprised = abs(off) > 6000 * 4 / max(self.allowance, 1)
        if surprised and (self.quick > self.demand) == (off > 0):
            self.demand = last if self.demand * seconds < 12000 else self.quick
        return surprised

    def fair(self, capacity):
        """The level at which flows cut off at it come to the capacity: by sorting."""
        sizes = sorted(flow[0] for flow in self.flows.values())
        for i, size in enumerate(sizes):
            level = (capacity - sum(sizes[:i])) / (len(sizes) - i)
            if size > level:
                return level
        return math.inf

    def worth(self):
        sizes = [flow[0] for flow in self.flows.values()]
        return sum(sizes) ** 2 / sum(size * size for size in sizes) if sizes else 0.0

    def report(self):
        self.pressed = self.since[1] > 0.02 * self.since[0]
        self.since, self.expected_since = [0.0, 0.0, 0.0], 0.0
        self.expected = self.local if self.pressed else min(self.local, self.demand)
        self.sent += 1
        return (self.who, self.sent, 0, PRESSED if self.pressed else REPORT, self.demand, self.worth(), self.all)

    def interval(self, now, seconds):
        self.count_flows(now)
        messages = self.decide(now, seconds)
        self.publish(now)
        return messages

    def decide(self, now, seconds):
        keep = 0.1**seconds
        self.demand = keep * self.demand + (1 - keep) * self.tick / seconds
        surprised = self.look(now, seconds)
        if self.members:
            return self.home(now, seconds)
        if now - self.granted_at > self.ALONE:
            self.local = self.rate / self.count
        begins = not self.pressed and self.since[1] > 0.02 * self.since[0]
        if now < self.report_at and not begins and not surprised or self.allowance < 1:
            return []
        self.allowance -= 1
        message = self.report()
        self.report_at = now + int(self.period * 1e9 * (0.9 + 0.2 * self.random.draw()))
        return [message]

    def receive(self, now, message):
        if message[3] == GRANT:
            self.local, self.granted_at = message[4], now
            self.expected = self.local if self.pressed else min(self.local, self.demand)
            if self.level is not None:
                self.allow(now)
            return []
        member = self.members[message[0]]
        self.enter(member, now, message)
        if self.due(member, now) and member.allowance >= 1:
            member.allowance -= 1
            return [self.tell(message[0], now)]
        return []

    def enter(self, member, now, message):
        off = message[6] - member.passed
        if member.known or off <= self.burst + self.rate * now / 1e9:
            self.excess += off
        member.known = True
        member.demand, member.weight, member.passed = message[4:]
        member.pressed, member.heard_at = message[3] == PRESSED, now
        member.foresee()

    def kept(self, member, now):
        silent = now - member.heard_at
        return self.rate / self.count if silent > self.ALONE else member.granted if silent > self.ALONE // 2 else None

    def grant(self, member):
        return min(member.most(), self.flow_rate * member.weight) + self.spare

    def due(self, member, now):
        return (abs(self.grant(member) - member.granted) > 0.02 * (member.granted + 0.01 * self.rate / self.count)
                or (now - member.granted_at) / 1e9 > self.period)

    def settle(self, member, now):
        member.granted, member.granted_at = self.grant(member), now
        member.foresee()
        return member.granted

    def tell(self, to, now):
        member = self.members[to]
        member.sent += 1
        return (0, member.sent, to, GRANT, self.settle(member, now), 0.0, 0.0)

    def share_out(self, now):
        """Whoever wants less for its weight than the others comes first, and gets it."""
        bound = 0.3 * self.rate
        left = self.rate - max(min(self.excess / 0.8, bound), -bound)
        left -= sum(self.kept(member, now) or 0 for member in self.members)
        heard = [member for member in self.members if self.kept(member, now) is None]
        heard.sort(key=lambda member: member.most() / member.weight if member.weight > 0
                   else 0 if member.most() <= 0 else math.inf)
        for i, member in enumerate(heard):
            weights = sum(other.weight for other in heard[i:])
            if weights <= 0 and member.most() > 0:
                break
            self.flow_rate = max(left, 0.01 * self.rate) / weights if weights > 0 else 0
            if member.most() > member.weight * self.flow_rate:
                self.spare = 0.0
                return
            left -= member.most()
        self.flow_rate, self.spare = self.rate, max(left, 0) / self.count

    def home(self, now, seconds):
        for member in self.members:
            if self.kept(member, now) is not None:
                member.rate = self.kept(member, now)
            member.passed += member.rate * seconds
            self.excess += member.rate * seconds
        self.excess -= self.rate * seconds
        self.enter(self.members[0], now, self.report())
        self.excess = max(self.excess, -0.05 * self.rate - self.burst)
        self.share_out(now)
        self.local = self.settle(self.members[0], now)
        self.expected = self.members[0].rate
        sends = []
        for to, member in enumerate(self.members[1:], 1):
            member.allowance = min(member.allowance + self.exchanges * seconds, 4)
            if self.kept(member, now) is None and self.due(member, now) and member.allowance >= 1:
                member.allowance -= 1
                sends.append(self.tell(to, now))
        return sends


def follow(trace, kind):
    """Returns what differs first, or None."""
    limiters, under_way, expected = [], {}, []
    for number, line in enumerate(trace, 1):
        what, *words = line.split()
        if what != "send" and expected:
            return f"line {number}: not sent: {expected[0]}"
        if what == "options":
            count, rate, burst = int(words[0]), float(words[1]), float(words[2])
            limiters = [kind(who, count, rate, burst) for who in range(count)]
        elif what == "packet":
            who, now, flow, size, verdict = map(int, words)
            if limiters[who].packet(now, flow, size, bool(verdict)) != bool(verdict):
                return f"line {number}: the model decides otherwise: {line}"
        elif what == "interval":
            limiter = limiters[int(words[0])]
            expected = limiter.interval(int(words[1]), float(words[2]))
            if not close(limiter.local, float(words[3])) or not close(limiter.drop, float(words[4]), 1e-3):
                return f"line {number}: the model allows {limiter.local}, drops {limiter.drop}: {line}"
            limiter.correct(float(words[3]))
        elif what == "send":
            message = tuple(map(int, words[:4])) + tuple(map(float, words[4:]))
            if not expected or expected[0][:4] != message[:4] or not all(map(close, expected[0][4:], message[4:])):
                return f"line {number}: the model sends {expected[:1]}: {line}"
            under_way[message[2], message[0], message[1]] = message
            expected.pop(0)
        else:
            to, now, sender, sequence = map(int, words)
            expected = limiters[to].receive(now, under_way[to, sender, sequence])
    if abs(Grd.dropped - Grd.expected) > 5 * math.sqrt(Grd.variance) + 1:
        return f"dropped {Grd.dropped} packets, expected {Grd.expected:.0f}"
    return None


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    kinds = {"split": Split, "gtb": Gtb, "grd": Grd, "fps": Fps, "pool": Pool}
    failed = False
    for mode, kind in kinds.items():
        for one in range(seed, seed + 3):
            trace = subprocess.run([sys.argv[1], mode, str(one)], check=True, capture_output=True, text=True).stdout
            wrong = follow(trace.splitlines(), kind)
            print(f"{mode}, seed {one}: {wrong or 'as the model'}")
            failed |= wrong is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
