# SPDX-License-Identifier: BSD-2-Clause
"""Capture files read without libpcap: classic pcap and pcapng, gzipped or not."""

import gzip
import struct
from collections import namedtuple

# stamp: nanoseconds since 1970 as captured (not yet made monotone), clamped to what a signed 64-bit number holds.
Packet = namedtuple("Packet", "stamp caplen len data")
# damage: why reading stopped before the end of the file, or None.
Capture = namedtuple("Capture", "linktype nanoseconds packets damage")

MAX_CAPLEN = 262144
MAX_BLOCK = 16 * 1024 * 1024


class Unreadable(Exception):
    """Not a capture at all, or one that cannot be opened."""


def clamp(ns):
    return max(0, min(ns, 2**63 - 1))


def read(path):
    with open(path, "rb") as file:
        head = file.read(2)
    opener = gzip.open if head == b"\x1f\x8b" else open
    with opener(path, "rb") as file:
        data = file.read()
    if len(data) < 4:
        raise Unreadable("shorter than a magic number")
    magic = data[:4]
    if magic == b"\x0a\x0d\x0d\x0a":
        return read_pcapng(data)
    for order in "<>":
        number = struct.unpack(order + "I", magic)[0]
        if number in (0xA1B2C3D4, 0xA1B23C4D):
            return read_pcap(data, order, number == 0xA1B23C4D)
    raise Unreadable("unknown magic number")


def read_pcap(data, order, nanoseconds):
    if len(data) < 24:
        raise Unreadable("the file header is cut off")
    snaplen, linktype = struct.unpack(order + "II", data[16:24])
    linktype &= 0x03FFFFFF
    packets, at = [], 24
    scale = 1 if nanoseconds else 1000
    while at < len(data):
        if at + 16 > len(data):
            return Capture(linktype, nanoseconds, packets, "a record header is cut off")
        seconds, fraction, caplen, length = struct.unpack(order + "iIII", data[at : at + 16])
        seconds &= 0xFFFFFFFF
        at += 16
        if caplen > max(MAX_CAPLEN, snaplen if snaplen <= 0x7FFFFFFF else 0):
            return Capture(linktype, nanoseconds, packets, "a captured length is impossible")
        if at + caplen > len(data):
            return Capture(linktype, nanoseconds, packets, "a packet is cut off")
        stamp = clamp(seconds * 10**9 + fraction * scale)
        packets.append(Packet(stamp, caplen, length, data[at : at + caplen]))
        at += caplen
    return Capture(linktype, nanoseconds, packets, None)


class Section:
    def __init__(self, order):
        self.order = order
        self.interfaces = []  # (linktype, snaplen, units in a second, offset in seconds)


def read_options(order, data):
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack(order + "HH", data[at : at + 4])
        at += 4
        if code == 0:
            return
        yield code, data[at : at + length]
        at += (length + 3) & ~3


def read_interface(section, body):
    linktype, _, snaplen = struct.unpack(section.order + "HHI", body[:8])
    units, offset = 10**6, 0
    for code, value in read_options(section.order, body[8:]):
        if code == 9 and len(value) >= 1:
            units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == 14 and len(value) >= 8:
            offset = struct.unpack(section.order + "q", value[:8])[0]
    section.interfaces.append((linktype, snaplen, units, offset))


def read_packet_block(section, kind, body):
    order = section.order
    if kind == 3:
        number, stamp, length = 0, 0, struct.unpack(order + "I", body[:4])[0]
        caplen = length
        if section.interfaces and section.interfaces[0][1]:
            caplen = min(length, section.interfaces[0][1])
        caplen, start = min(caplen, len(body) - 4), 4
    elif kind == 6:
        number, high, low, caplen, length = struct.unpack(order + "IIIII", body[:20])
        stamp, start = high << 32 | low, 20
    else:
        number, _, high, low, caplen, length = struct.unpack(order + "HHIIII", body[:20])
        stamp, start = high << 32 | low, 20
    if number >= len(section.interfaces):
        raise ValueError("a packet of an unknown interface")
    if start + caplen > len(body) or caplen > MAX_CAPLEN:
        raise ValueError("a captured length is impossible")
    linktype, _, units, offset = section.interfaces[number]
    seconds, fraction = divmod(stamp, units)
    ns = (seconds + offset) * 10**9 + fraction * 10**9 // units
    return linktype, Packet(clamp(ns), caplen, length, body[start : start + caplen])


def read_pcapng(data):
    packets, at, section, linktype = [], 0, None, None
    damage = None
    while at < len(data):
        if at + 12 > len(data):
            damage = "a block header is cut off"
            break
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(data[at + 8 : at + 12])
            if order is None:
                damage = "a section of unknown byte order"
                break
            section = Section(order)
        kind, total = struct.unpack(section.order + "II", data[at : at + 8])
        if total < 12 or total % 4 or total > MAX_BLOCK or at + total > len(data):
            damage = "a block's length is impossible, or it is cut off"
            break
        if struct.unpack(section.order + "I", data[at + total - 4 : at + total])[0] != total:
            damage = "a block's two lengths differ"
            break
        body = data[at + 8 : at + total - 4]
        at += total
        try:
            if kind == 1:
                read_interface(section, body)
                if linktype is None:
                    linktype = section.interfaces[-1][0]
                elif linktype != section.interfaces[-1][0]:
                    damage = "interfaces of several link types"
                    break
            elif kind in (2, 3, 6):
                packets.append(read_packet_block(section, kind, body)[1])
        except (ValueError, struct.error) as error:
            damage = str(error)
            break
    if linktype is None:
        raise Unreadable("no interface")
    return Capture(linktype, True, packets, damage)


def write_pcap(path, linktype, packets, nanoseconds=False):
    """Classic pcap, for tests."""
    with open(path, "wb") as file:
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
        file.write(struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 262144, linktype))
        for packet in packets:
            seconds, ns = divmod(packet.stamp, 10**9)
            fraction = ns if nanoseconds else ns // 1000
            file.write(struct.pack("<IIII", seconds, fraction, packet.caplen, packet.len) + packet.data)
