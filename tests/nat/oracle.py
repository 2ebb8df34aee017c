#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-nat against a model in Python that shares no code with it.

    oracle.py --runner RUN_NAT [--rounds N] [--seed N]

A capture of what inside hosts send is run once, so that it is known by which addresses and ports they are seen; then
answers, errors and data connections are added, and the whole is run unsplit, and split, merged and moved at random with
replicas killed. The unsplit output is compared with the model packet by packet: who is let through and when a session
ends, that no two live sessions have one outside end towards one place, that what comes back reaches who it is for, that
all checksums are right. The split outputs are compared with the unsplit one, byte by byte.
"""

import argparse
import filecmp
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))

import capture  # noqa: E402

SECOND = 10**9
TCP, UDP, ICMP = 6, 17, 1
FIN, SYN, RST, ACK = 1, 2, 4, 16
OUTSIDE = ["192.0.2.1", "192.0.2.2"]
LIFE = {"tcp": 30 * SECOND, "transitory": 4 * SECOND, "udp": 3 * SECOND, "icmp": 2 * SECOND}
CONFIG = "inside: 10.0.0.0/8\noutside: [192.0.2.1, 192.0.2.2]\ntimeouts: {tcp: 30s, transitory: 4s, udp: 3s, icmp: 2s}\n"


def address(text):
    return bytes(map(int, text.split(".")))


def total(data):
    data += b"\0" * (len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def ip_packet(ident, source, destination, protocol, payload, fragment=0):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0, source, destination)
    return header[:10] + struct.pack("!H", 0xFFFF - total(header)) + header[12:] + payload


def with_sum(source, destination, protocol, payload, at):
    pseudo = b"" if protocol == ICMP else source + destination + struct.pack("!HH", protocol, len(payload))
    value = 0xFFFF - total(pseudo + payload)
    if protocol == UDP and value == 0:
        value = 0xFFFF
    return payload[:at] + struct.pack("!H", value) + payload[at + 2:]


def tcp(source, sport, destination, dport, flags, seq, ack, data=b"", options=b""):
    head = struct.pack("!HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, (20 + len(options)) << 2, flags, 8192, 0, 0)
    return with_sum(source, destination, TCP, head + options + data, 16)


def udp(source, sport, destination, dport, data, summed=True):
    payload = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    return with_sum(source, destination, UDP, payload, 6) if summed else payload


def echo(kind, ident, data):
    return with_sum(b"", b"", ICMP, struct.pack("!BBHHH", kind, 0, 0, ident, 1) + data, 2)


def error(quoted):
    return with_sum(b"", b"", ICMP, struct.pack("!BBHI", 3, 3, 0, 0) + quoted[:28 + 8], 2)


class Packet:
    """An IPv4 packet, taken apart."""

    def __init__(self, data):
        self.data = data
        size = (data[0] & 15) * 4
        self.ident, self.fragment = struct.unpack_from("!HH", data, 4)
        self.protocol, self.source, self.destination = data[9], data[12:16], data[16:20]
        self.payload = data[size:struct.unpack_from("!H", data, 2)[0]]
        self.later = self.fragment & 0x1FFF != 0
        self.whole = self.fragment & 0x3FFF == 0
        self.sport = self.dport = self.flags = 0
        if self.later or len(self.payload) < 8:
            return
        if self.protocol in (TCP, UDP):
            self.sport, self.dport = struct.unpack_from("!HH", self.payload)
        if self.protocol == TCP and len(self.payload) >= 20:
            self.flags = self.payload[13]
        self.is_error = self.protocol == ICMP and self.payload[0] == 3
        if self.protocol == ICMP and not self.is_error:
            self.sport = self.dport = struct.unpack_from("!H", self.payload, 4)[0]

    def text(self):
        return self.payload[(self.payload[12] >> 4) * 4:] if self.protocol == TCP else b""

    def sums_hold(self):
        size = (self.data[0] & 15) * 4
        if total(self.data[:size]) != 0xFFFF:
            return False
        if not self.whole:
            return True
        if self.protocol == ICMP:
            return total(self.payload) == 0xFFFF
        if self.protocol == UDP and self.payload[6:8] == b"\0\0":
            return True
        pseudo = self.source + self.destination + struct.pack("!HH", self.protocol, len(self.payload))
        return total(pseudo + self.payload) == 0xFFFF


class Maker:
    """What inside hosts send: (time, bytes)."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now, self.ident, self.packets = 1700000000 * SECOND, 0, []
        self.hosts = [address(f"10.0.{n % 3}.{n}") for n in range(1, 40)]
        self.remotes = [address(f"198.51.100.{n}") for n in range(1, 5)]
        self.talks, self.over = [], []

    def emit(self, source, destination, protocol, payload, fragment=0):
        self.ident += 1
        self.packets.append((self.now, ip_packet(self.ident, source, destination, protocol, payload, fragment)))

    def begin(self):
        kind = self.random.choice(("tcp", "tcp", "ftp", "udp", "udp", "echo"))
        port = {"tcp": 80, "ftp": 21, "udp": 53, "echo": 0}[kind]
        talk = {"kind": kind, "host": self.random.choice(self.hosts), "remote": self.random.choice(self.remotes),
                "port": self.random.randint(1024, 65535), "to": port, "seq": self.random.getrandbits(32),
                "left": self.random.randint(1, 6 if kind == "ftp" else 12), "first": True}
        self.talks.append(talk)

    def ftp_text(self, talk):
        host, port = talk["host"], self.random.randint(1024, 65535)
        if self.random.random() < 0.3:
            return b"TYPE I\r\n"
        whose = host if self.random.random() < 0.9 else address("10.9.9.9")
        if self.random.random() < 0.5:
            return f"PORT {','.join(map(str, whose))},{port >> 8},{port & 255}\r\n".encode()
        return f"EPRT |1|{'.'.join(map(str, whose))}|{port}|\r\n".encode()

    def speak_tcp(self, talk):
        r, options, data = self.random, b"", b""
        flags = ACK
        if talk["first"] and r.random() < 0.95:
            flags, options = SYN, b"\x02\x04\x05\xb4\x04\x02\x01\x01"
        elif talk["left"] == 0:
            flags = r.choice((FIN | ACK, FIN | ACK, RST, ACK))
        else:
            data = self.ftp_text(talk) if talk["kind"] == "ftp" else r.randbytes(r.randint(0, 60))
        segment = tcp(talk["host"], talk["port"], talk["remote"], talk["to"], flags, talk["seq"], 1, data, options)
        self.emit(talk["host"], talk["remote"], TCP, segment)
        if r.random() < 0.1:  # again
            self.emit(talk["host"], talk["remote"], TCP, segment)
        talk["seq"] += len(data) + bool(flags & (SYN | FIN))

    def speak_udp(self, talk):
        r = self.random
        datagram = udp(talk["host"], talk["port"], talk["remote"], talk["to"], r.randbytes(r.randint(0, 90)), r.random() < 0.8)
        if len(datagram) > 40 and r.random() < 0.2:
            self.emit(talk["host"], talk["remote"], UDP, datagram[:32], 0x2000)
            self.emit(talk["host"], talk["remote"], UDP, datagram[32:], 4)
            for at in (-2, -1):  # of one datagram
                when, data = self.packets[at]
                data = data[:4] + struct.pack("!H", self.ident) + data[6:10] + b"\0\0" + data[12:]
                data = data[:10] + struct.pack("!H", 0xFFFF - total(data[:20])) + data[12:]
                self.packets[at] = (when, data)
        else:
            self.emit(talk["host"], talk["remote"], UDP, datagram)

    def step(self):
        r = self.random
        self.now += r.choice((0, 1, 1000, 10**6, 5 * 10**7, 2 * 10**8)) if r.random() < 0.99 else r.randint(1, 6 * SECOND)
        if not self.talks or r.random() < 0.25:
            self.begin()
        talk = r.choice(self.talks)
        if self.over and r.random() < 0.15:
            talk = r.choice(self.over[-20:])  # long after its end
            talk["left"] = 0
        talk["left"] -= 1
        if talk["kind"] in ("tcp", "ftp"):
            self.speak_tcp(talk)
        elif talk["kind"] == "udp":
            self.speak_udp(talk)
        else:
            self.emit(talk["host"], talk["remote"], ICMP, echo(8, talk["port"], r.randbytes(20)))
        talk["first"] = False
        if talk["left"] <= 0 and talk in self.talks:
            self.talks.remove(talk)
            self.over.append(talk)


def answers(maker, packets, seen):
    """The first capture with what comes back. `seen`: what became of each packet, by its identification."""
    r, ident, found = maker.random, 30000, []
    for when, data in packets:
        found.append((when, data))
        out = seen.get(Packet(data).ident)
        if out is None or r.random() < 0.35:
            continue
        p = Packet(out)
        back = []
        if p.later or not p.whole:
            continue
        if p.protocol == TCP:
            seq, length = struct.unpack_from("!I", p.payload, 4)[0], len(p.text()) + bool(p.flags & (SYN | FIN))
            flags = (p.flags & (SYN | FIN)) | ACK
            back.append((TCP, tcp(p.destination, p.dport, p.source, p.sport, flags, 1, seq + length)))
            named = re.match(rb"PORT (?:\d+,){4}(\d+),(\d+)\r|EPRT \|1\|[\d.]+\|(\d+)\|", p.text())
            if named:
                port = int(named[3]) if named[3] else int(named[1]) << 8 | int(named[2])
                back.append((TCP, tcp(p.destination, 20, p.source, port, SYN, 7, 0)))
                back.append((TCP, tcp(p.destination, 2020, p.source, port, SYN, 7, 0)))
        elif p.protocol == UDP:
            back.append((UDP, udp(p.destination, p.dport, p.source, p.sport, b"back")))
        else:
            back.append((ICMP, echo(0, p.sport, b"back")))
        if r.random() < 0.2:
            back.append((ICMP, error(out)))
        for protocol, payload in back:
            ident += 1
            found.append((when, ip_packet(ident, p.destination, p.source, protocol, payload)))
            if r.random() < 0.1:  # an inside host's error about it
                inside = Packet(data).source
                came = ip_packet(ident, p.destination, inside, protocol, payload)
                moved = bytearray(came)
                port = Packet(data).sport
                if protocol in (TCP, UDP):
                    moved[22:24] = struct.pack("!H", port)
                elif payload[0] == 0:
                    moved[24:26] = struct.pack("!H", port)
                if payload[0] != 3 or protocol != ICMP:
                    ident += 1
                    found.append((when, ip_packet(ident, inside, p.destination, ICMP, error(bytes(moved)))))
    return found


class Wrong(Exception):
    pass


def expect(condition, *what):
    if not condition:
        raise Wrong(" ".join(map(str, what)))


class Model:
    """Sessions by what was seen of them; time is packet time."""

    def __init__(self):
        self.by_inside, self.by_outside, self.fragments = {}, {}, {}
        self.opened = self.ended = self.data_connections = self.errors = 0

    def find(self, table, key, now):
        session = table.get(key)
        if session and now >= session["until"]:
            self.end(session)
            return None
        return session

    def end(self, session):
        if self.by_outside.get(session["outside_key"]) is session:
            del self.by_outside[session["outside_key"]]
        for key in session["inside_keys"]:
            if self.by_inside.get(key) is session:
                del self.by_inside[key]
        self.ended += 1

    def open(self, now, key, outside):
        protocol, inside, iport, remote, rport = key
        back = (protocol, remote, rport if protocol != ICMP else outside[1], *outside)
        expect(self.find(self.by_outside, back, now) is None, "two live sessions have", back)
        expect(outside[0] in map(address, OUTSIDE) and 1024 <= outside[1], "not an outside end:", outside)
        session = {"protocol": protocol, "inside": (inside, iport), "outside": outside, "seen": 0, "until": 0,
                   "outside_key": back, "inside_keys": [key], "shifts": [], "data": []}
        self.by_inside[key] = self.by_outside[back] = session
        self.opened += 1
        return session

    def touch(self, session, now, flags, outbound):
        if session["protocol"] == TCP:
            seen = session["seen"]
            closing = seen & 16 or seen & 12 == 12
            if flags & (SYN | ACK) == SYN and closing:
                seen = 0
            seen |= (1 if outbound else 2) if flags & SYN else 0
            seen |= (4 if outbound else 8) if flags & FIN else 0
            seen |= 16 if flags & RST else 0
            session["seen"] = seen
            is_open = seen & 3 == 3 and not (seen & 16 or seen & 12 == 12)
            life = LIFE["tcp" if is_open else "transitory"]
        else:
            life = LIFE["udp" if session["protocol"] == UDP else "icmp"]
        session["until"] = now + life

    def outbound(self, now, p, out):
        key = (p.protocol, p.source, p.sport, p.destination, p.dport)
        if p.later:
            session = self.fragments.get((p.source, p.destination, p.ident))
            session = session if session and now < session["until"] else None
        elif p.is_error_packet():
            return self.outbound_error(now, p, out)
        else:
            session = self.find(self.by_inside, key, now)
        may = p.protocol == UDP and not p.later or p.protocol == ICMP or p.protocol == TCP and p.flags & (SYN | ACK) == SYN
        if session is None and not may:
            expect(out is None, "let through without a session:", key)
            return
        expect(out is not None, "not let through:", key)
        q = Packet(out)
        if session is None:
            session = self.open(now, key, (q.source, q.sport))
        if p.fragment & 0x2000:
            self.fragments[(p.source, p.destination, p.ident)] = session
        self.touch(session, now, p.flags, True)
        expect(q.source == session["outside"][0] and q.destination == p.destination, "wrong source", key)
        if p.later:
            expect(q.payload == p.payload, "a fragment's bytes changed")
            return
        expect(q.sport == session["outside"][1] and (q.dport == p.dport or p.protocol == ICMP), "wrong port", key)
        expect(q.sums_hold(), "a checksum of", key)
        if p.protocol == TCP and p.dport == 21:
            self.control(now, session, p, q)
        elif p.protocol == TCP:
            expect(q.payload[4:16] == p.payload[4:16] and q.payload[18:] == p.payload[18:], "bytes changed", key)
        elif p.protocol == UDP:
            expect(q.payload[8:] == p.payload[8:] and (q.payload[6:8] == b"\0\0") == (p.payload[6:8] == b"\0\0"), "bytes")

    def control(self, now, session, p, q):
        seq, to = struct.unpack_from("!I", p.payload, 4)[0], struct.unpack_from("!I", q.payload, 4)[0]
        shift = sum(more for at, more in session["shifts"] if (seq - at) % 2**32 < 2**31 and seq != at)
        expect(to == (seq + shift) % 2**32, "a sequence number is not shifted by", shift)
        if p.flags & SYN:
            expect(b"\x04\x02" in p.payload[20:] and b"\x04\x02" not in q.payload[20:], "SACK is still allowed")
        named = re.fullmatch(rb"PORT (\d+,\d+,\d+,\d+),(\d+),(\d+)\r\n|EPRT \|1\|([\d.]+)\|(\d+)\|\r\n", p.text())
        whose = named and bytes(map(int, (named[1] or named[4]).replace(b".", b",").split(b",")))
        if not named or whose != p.source:
            expect(q.text() == p.text(), "what was said changed", p.text(), q.text())
            return
        port = int(named[5]) if named[5] else int(named[2]) << 8 | int(named[3])
        pattern = rb"PORT (\d+,\d+,\d+,\d+),(\d+),(\d+)\r\n" if named[1] else rb"EPRT \|1\|([\d.]+)\|(\d+)\|\r\n"
        said = re.fullmatch(pattern, q.text())
        expect(said, "not a command:", q.text())
        outside = (bytes(map(int, said[1].replace(b".", b",").split(b","))),
                   int(said[2]) << 8 | int(said[3]) if named[1] else int(said[2]))
        key = (TCP, p.source, port, p.destination, 20)
        data = self.find(self.by_inside, key, now)
        closing = lambda one: one["seen"] & 16 or one["seen"] & 12 == 12  # noqa: E731
        if data is None or closing(data):
            for one in session["data"]:
                if one["seen"] == 0 or closing(one):
                    self.end(one)
            data = self.open(now, key, outside)
            session["data"].append(data)
            self.data_connections += 1
            self.touch(data, now, 0, True)
        more = len(q.text()) - len(p.text())
        if more and all(at != seq for at, _ in session["shifts"]):
            session["shifts"].append((seq, more))

    def inbound(self, now, p, out):
        if p.is_error_packet():
            self.inbound_error(now, p, out)
            return
        key = (p.protocol, p.source, p.sport, p.destination, p.dport)
        session = self.find(self.by_outside, key, now)
        expect((out is None) == (session is None), "let in" if out else "not let in", key)
        if session is None:
            return
        self.touch(session, now, p.flags, False)
        q = Packet(out)
        expect((q.destination, q.dport) == session["inside"] and q.source == p.source, "reached another than", session)
        expect(q.sums_hold(), "a checksum of", key)
        if p.protocol == TCP and p.sport == 21:
            ack, back = struct.unpack_from("!I", p.payload, 8)[0], struct.unpack_from("!I", q.payload, 8)[0]
            shift = 0
            for at, more in session["shifts"]:
                if 0 < (ack - shift - at) % 2**32 < 2**31:
                    shift += more
            expect(back == (ack - shift) % 2**32, "an acknowledgement is not shifted back by", shift)

    def inbound_error(self, now, p, out):
        quoted = Packet(p.payload[8:] + bytes(40))
        key = (quoted.protocol, quoted.destination, quoted.dport, quoted.source, quoted.sport)
        session = self.find(self.by_outside, key, now)
        expect((out is None) == (session is None), "an error about", key)
        if session is not None:
            self.check_error(Packet(out), "destination", session["inside"], "source")

    def outbound_error(self, now, p, out):
        quoted = Packet(p.payload[8:] + bytes(40))
        key = (quoted.protocol, quoted.destination, quoted.dport, quoted.source, quoted.sport)
        session = self.find(self.by_inside, key, now)
        expect((out is None) == (session is None), "an inside error about", key)
        if session is not None:
            self.check_error(Packet(out), "source", session["outside"], "destination")

    def check_error(self, q, outer, end, inner):
        self.errors += 1
        quoted = Packet(q.payload[8:] + bytes(40))
        expect(q.sums_hold() and total(quoted.data[:20]) == 0xFFFF, "a checksum of an error")
        port = quoted.sport if inner == "source" else quoted.dport
        expect(getattr(q, outer) == end[0] and (getattr(quoted, inner), port) == end, "an error reached", end)


Packet.is_error_packet = lambda self: not self.later and self.protocol == ICMP and self.payload[0] == 3


def by_ident(path):
    return {(Packet(data).ident, Packet(data).fragment): data for _, data in packets_of(path)}


def packets_of(path):
    return [(packet.stamp, packet.data) for packet in capture.read(path).packets]


def write(path, packets):
    capture.write_pcap(path, 101, [capture.Packet(when, len(data), len(data), data) for when, data in packets], True)


def run(given, folder, name, out, seed, replicas, kills):
    done = subprocess.run([given.runner, os.path.join(folder, "nat.yaml"), name, out, str(seed), str(replicas), str(kills)],
                          capture_output=True, text=True, timeout=120, check=False)
    print(f"     SM_SEED={seed} {done.stdout.strip()} {done.stderr.strip()}", flush=True)
    expect(done.returncode == 0, f"run_nat ended with status {done.returncode}")


def attempt(given, folder, seed):
    place = lambda name: os.path.join(folder, name)  # noqa: E731
    with open(place("nat.yaml"), "w", encoding="ascii") as file:
        file.write(CONFIG)
    maker = Maker(seed)
    while len(maker.packets) < given.packets:
        maker.step()
    write(place("first.pcap"), maker.packets)
    run(given, folder, place("first.pcap"), place("seen.pcap"), seed, 1, 0)
    seen = {Packet(data).ident: data for _, data in packets_of(place("seen.pcap")) if not Packet(data).later}
    packets = answers(maker, maker.packets, seen)
    write(place("in.pcap"), packets)
    run(given, folder, place("in.pcap"), place("unsplit.pcap"), seed, 1, 0)
    outs, model = by_ident(place("unsplit.pcap")), Model()
    for when, data in packets:
        p = Packet(data)
        out = outs.get((p.ident, p.fragment))
        try:
            (model.outbound if p.source[0] == 10 else model.inbound)(when, p, out)
        except Wrong as wrong:
            raise Wrong(f"packet {p.ident} at {when}: {wrong}") from None
    print(f"     {len(packets)} packets, {model.opened} sessions opened, {model.ended} ended, "
          f"{model.data_connections} data connections, {model.errors} errors")
    expect(model.data_connections > 5 and model.errors > 20 and model.ended > 20, "the capture is too plain")
    for split in range(given.splits):
        run(given, folder, place("in.pcap"), place("out.pcap"), seed, 2 + split, 40 if split else 0)
        expect(filecmp.cmp(place("unsplit.pcap"), place("out.pcap"), False), "the output is not that of the unsplit run")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", required=True)
    parser.add_argument("--rounds", type=int, default=20 if os.environ.get("SM_FULL") else 2)
    parser.add_argument("--packets", type=int, default=2000)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SM_SEED", time.time())))
    given = parser.parse_args()
    failed = 0
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory(prefix="sm-nat-") as folder:
            try:
                attempt(given, folder, given.seed + number)
            except Wrong as wrong:
                failed += 1
                print(f"FAIL SM_SEED={given.seed + number}: {wrong}")
    print(f"{failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
