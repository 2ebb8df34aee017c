# SPDX-License-Identifier: BSD-2-Clause
"""Captures made on the spot: every encapsulation and protocol that steering knows, with bursts that meet limits."""

import os
import random
import struct

from capture import Packet, write_pcap

ERRORS4, ERRORS6 = (3, 4, 5, 11, 12), (1, 2, 3, 4)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Maker:
    def __init__(self, seed, linktype):
        self.rnd = random.Random(seed)
        self.linktype = linktype
        self.hosts4 = [bytes([10, 0, 0, i]) for i in range(1, 6)]
        self.hosts6 = [bytes([0x20, 1, 0xD, 0xB8] + [0] * 11 + [i]) for i in range(1, 5)]
        self.ident = 0

    def transport(self, protocol, size):
        rnd = self.rnd
        ports = struct.pack(">HH", rnd.choice((53, 80, 443)), rnd.choice((1000, 1001)))
        body = rnd.randbytes(size)
        if protocol == 6:
            return ports + struct.pack(">IIBBHHH", 1, 2, 5 << 4, 0x10, 100, 0, 0) + body
        if protocol == 17:
            return ports + struct.pack(">HH", 8 + size, 0) + body
        if protocol == 132:
            return ports + struct.pack(">II", 7, 0) + body
        if protocol in (1, 58):
            kind = rnd.choice((8, 0) if protocol == 1 else (128, 129))
            return struct.pack(">BBHHH", kind, 0, 0, rnd.choice((7, 8)), 1) + body
        return body

    def ip4(self, source, destination, protocol, payload, bits=0, ident=None):
        rnd = self.rnd
        options = rnd.choice((b"", b"", b"", b"\x01\x01\x01\x00"))
        if ident is None:
            self.ident = (self.ident + 1) & 0xFFFF
            ident = self.ident
        header = struct.pack(">BBHHHBBH4s4s", 0x45 + len(options) // 4, rnd.choice((0, 1, 2, 3, 0xB8)),
                             20 + len(options) + len(payload), ident, bits, 64, protocol, 0, source, destination) + options
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload

    def ip6(self, source, destination, protocol, payload, extensions=()):
        kinds = [kind for kind, _ in extensions] + [protocol]
        chain = b"".join(bytes([kinds[i + 1]]) + body for i, (_, body) in enumerate(extensions))
        first = 0x60000000 | self.rnd.choice((0, 1, 2, 3, 0xB8)) << 20 | 0x12345
        return struct.pack(">IHBB16s16s", first, len(chain) + len(payload), kinds[0], 64, source, destination) + chain + payload

    def plain(self, size):
        rnd = self.rnd
        if rnd.random() < 0.6:
            source, destination = rnd.sample(self.hosts4, 2)
            protocol = rnd.choice((6, 17, 17, 1, 132, 47))
            return self.ip4(source, destination, protocol, self.transport(protocol, size))
        source, destination = rnd.sample(self.hosts6, 2)
        protocol = rnd.choice((6, 17, 58, 132, 47, 59))
        extensions = rnd.choice(((), (), ((0, b"\0" + b"\0" * 6),), ((60, b"\1" + b"\0" * 14),),
                                 ((51, b"\4" + b"\0" * 22),), ((0, b"\0" + b"\0" * 6), (43, b"\0" + b"\0" * 6))))
        return self.ip6(source, destination, protocol, self.transport(protocol, size), extensions)

    def tunnelled(self, size):
        """A packet in a tunnel; two of each kind are in use."""
        rnd = self.rnd
        inner, number = self.plain(size), rnd.choice((7, 0x10203))
        kind = 0x0800 if inner[0] >> 4 == 4 else 0x86DD
        frame = b"\6" * 12 + (struct.pack(">HHH", 0x8100, 5, kind) if rnd.random() < 0.3 else struct.pack(">H", kind)) + inner
        dice = rnd.choice(("ip", "gre", "gre key", "gre frame", "vxlan", "vxlan", "geneve", "geneve frame"))
        if dice == "ip":
            protocol, body = 4 if kind == 0x0800 else 41, inner
        elif dice.startswith("gre"):
            bits = rnd.choice((0, 0x8000, 0x1000, 0x9000)) | (0x2000 if dice == "gre key" else 0)
            body = struct.pack(">HH", bits, 0x6558 if dice == "gre frame" else kind) + (b"\0" * 4 if bits & 0x8000 else b"")
            body += struct.pack(">I", number) if bits & 0x2000 else b""
            body += b"\0\0\0\1" if bits & 0x1000 else b""
            protocol, body = 47, body + (frame if dice == "gre frame" else inner)
        else:
            options = b"\0" * rnd.choice((0, 4, 8)) if dice.startswith("geneve") else b""
            what = 0x6558 if dice == "geneve frame" else kind
            head = struct.pack(">BBHI", 8 if dice == "vxlan" else len(options) // 4, 0, 0 if dice == "vxlan" else what, number << 8)
            carried = inner if dice == "geneve" else frame
            port = rnd.choice((4789, 8472)) if dice == "vxlan" else 6081
            body = head + options + carried
            protocol, body = 17, struct.pack(">HHHH", rnd.randrange(1024, 65536), port, 8 + len(body), 0) + body
        if rnd.random() < 0.7:
            return self.ip4(self.hosts4[0], rnd.choice(self.hosts4[1:3]), protocol, body)
        return self.ip6(self.hosts6[0], rnd.choice(self.hosts6[1:3]), protocol, body)

    def icmp_error(self, size):
        quoted = self.plain(size)
        quoted = quoted[: self.rnd.choice((20, 28, 40, 48, 100, len(quoted)))]
        if quoted[0] >> 4 == 4:
            message = struct.pack(">BBHI", self.rnd.choice(ERRORS4), 0, 0, 0) + quoted
            return self.ip4(self.rnd.choice(self.hosts4), self.rnd.choice(self.hosts4), 1, message)
        message = struct.pack(">BBHI", self.rnd.choice(ERRORS6), 0, 0, 0) + quoted
        return self.ip6(self.rnd.choice(self.hosts6), self.rnd.choice(self.hosts6), 58, message)

    def fragments(self, size):
        """A packet in three fragments, in order or not, now and then without its first."""
        rnd = self.rnd
        payload = self.transport(17, (size + 64) // 8 * 8 * 3 - 8)
        third = len(payload) // 3 // 8 * 8
        parts = [(0, payload[:third]), (third, payload[third : 2 * third]), (2 * third, payload[2 * third :])]
        ident = rnd.randrange(4)  # idents come again
        made = []
        v4 = rnd.random() < 0.5
        source, destination = rnd.sample(self.hosts4 if v4 else self.hosts6, 2)
        for offset, part in parts:
            more = offset < 2 * third
            if v4:
                made.append(self.ip4(source, destination, 17, part, offset // 8 | (0x2000 if more else 0), ident))
            else:
                header = b"\0" + struct.pack(">HI", offset | more, ident)
                made.append(self.ip6(source, destination, 17, part, ((44, header),)))
        if rnd.random() < 0.3:
            rnd.shuffle(made)
        if rnd.random() < 0.2:
            made.pop(0)
        return made

    def framed(self, ip):
        """Put a link header and perhaps tags before an IP packet."""
        rnd = self.rnd
        kind = 0x0800 if ip[0] >> 4 == 4 else 0x86DD
        if self.linktype in (101, 228, 229):
            return ip
        if self.linktype in (0, 108):
            family = 2 if kind == 0x0800 else rnd.choice((24, 28, 30))
            return struct.pack("<I" if self.linktype == 0 else ">I", family) + ip
        tag = rnd.choice(("none", "none", "vlan", "qinq", "mpls", "mpls2", "pppoe", "vlan pppoe"))
        vlan = struct.pack(">H", rnd.choice((0, 5, 6, 7, 4095)) | 0x2000)
        if "pppoe" in tag:
            ppp = struct.pack(">H", 0x21 if kind == 0x0800 else 0x57) + ip
            kind, ip = 0x8864, struct.pack(">BBHH", 0x11, 0, 5, len(ppp)) + ppp
        if tag.startswith("mpls"):
            labels = [struct.pack(">I", rnd.randrange(16, 2**20) << 12 | 64) for _ in range(tag.count("2") + 1)]
            labels[-1] = labels[-1][:2] + bytes([labels[-1][2] | 1]) + labels[-1][3:]
            kind, ip = 0x8847, b"".join(labels) + ip
        if tag.startswith("vlan") or tag == "qinq":
            kind, ip = 0x8100, vlan + struct.pack(">H", kind) + ip
        if tag == "qinq":
            kind, ip = 0x88A8, vlan + struct.pack(">H", kind) + ip
        if self.linktype == 113:
            return struct.pack(">HHH8sH", 0, 1, 6, b"\2" * 8, kind) + ip
        if self.linktype == 276:
            return struct.pack(">HHIHBB8s", kind, 0, 1, 1, 0, 6, b"\2" * 8) + ip
        return b"\2" * 6 + b"\4" * 6 + struct.pack(">H", kind) + ip

    def packets(self, count):
        rnd, now, made = self.rnd, 1700000000 * 10**9, []
        while len(made) < count:
            # Bursts, pauses, and clocks that go back.
            now += rnd.choice((0, 1000, 100000, 10**6, 10**7, 10**8)) if rnd.random() < 0.98 else rnd.choice((31 * 10**9, 10**10))
            stamp = now - (rnd.randrange(10**9) if rnd.random() < 0.05 else 0)
            size = rnd.choice((0, 1, 40, 100, 500, 1200))
            dice = rnd.random()
            group = ([self.icmp_error(size)] if dice < 0.1 else self.fragments(size) if dice < 0.25
                     else [self.tunnelled(size)] if dice < 0.4 else [self.plain(size)])
            if self.linktype in (228, 229):
                group = [ip for ip in group if ip[0] >> 4 == (4 if self.linktype == 228 else 6)]
            for ip in group:
                data = self.framed(ip)
                if self.linktype == 1 and rnd.random() < 0.02:
                    data = b"\xff" * 6 + b"\4" * 6 + b"\x08\x06" + bytes(28)
                caplen = len(data) if rnd.random() < 0.9 else rnd.randrange(len(data) + 1)
                made.append(Packet(stamp // 1000 * 1000, caplen, len(data), data[:caplen]))
        return made


def write_all(folder, seed):
    """One capture a link type; their paths."""
    paths = []
    for linktype in (1, 1, 1, 0, 101, 108, 113, 228, 229, 276):
        path = os.path.join(folder, "synthetic-%d-%d.pcap" % (linktype, len(paths)))
        maker = Maker("%d %d" % (seed, len(paths)), linktype)
        write_pcap(path, linktype, maker.packets(800))
        paths.append(path)
    return paths
