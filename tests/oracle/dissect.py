# SPDX-License-Identifier: BSD-2-Clause
"""From captured bytes to flow keys, written from the design's words (docs: steering, decision D3), not from the C code.

A key is a plain tuple. Two-way keys (flow, host-pair) put the lower endpoint first, so that both directions agree.
"""

import itertools
import struct

VLAN = {0x8100, 0x88A8, 0x9100, 0x9200}
MPLS = {0x8847, 0x8848}
PPPOE_SESSION = 0x8864
IPV4, IPV6 = 0x0800, 0x86DD
WITH_PORTS = {6, 17, 132}
EXTENSIONS = {0, 43, 60}  # RFC 8200; their second byte counts units of 8 bytes beyond the first 8
AUTHENTICATION, FRAGMENT = 51, 44
EXTENSIONS_MOST = 16  # a longer chain is not read to its end (RFC 8883 has an ICMPv6 error for that)
ICMP_ERRORS = {1: {3, 4, 5, 11, 12}, 58: {1, 2, 3, 4}}
ICMP_ECHO = {1: {0, 8}, 58: {128, 129}}
FRAGMENT_LIFE = 30 * 10**9


class Ip:
    """One IP header and where its payload is."""

    __slots__ = ("family", "start", "source", "destination", "protocol", "payload", "fragment", "offset", "ident", "end")


def number16(data, at):
    return data[at] << 8 | data[at + 1]


def has(data, at, length):
    return at >= 0 and at + length <= len(data)


def by_version(data, at):
    """IP whose version is told by its first nibble only."""
    if not has(data, at, 1):
        return None
    return {4: (IPV4, at), 6: (IPV6, at)}.get(data[at] >> 4)


def ethertype(data, kind, at):
    """Follow tags and labels: (IPV4 or IPV6, offset) or None."""
    while True:
        if kind in (IPV4, IPV6):
            return kind, at
        if kind in VLAN:
            if not has(data, at, 4):
                return None
            kind, at = number16(data, at + 2), at + 4
        elif kind in MPLS:
            while True:
                if not has(data, at, 4):
                    return None
                bottom, at = data[at + 2] & 1, at + 4
                if bottom:
                    return by_version(data, at)
        elif kind == PPPOE_SESSION:
            if not has(data, at, 8):
                return None
            kind = {0x0021: IPV4, 0x0057: IPV6}.get(number16(data, at + 6))
            at += 8
            if kind is None:
                return None
        else:
            return None


def link(linktype, data):
    """The outermost IP header: (IPV4 or IPV6, offset) or None."""
    if linktype == 1:
        return ethertype(data, number16(data, 12), 14) if has(data, 0, 14) else None
    if linktype == 113:
        return ethertype(data, number16(data, 14), 16) if has(data, 0, 16) else None
    if linktype == 276:
        return ethertype(data, number16(data, 0), 20) if has(data, 0, 20) else None
    if linktype in (101, 12, 14):
        return by_version(data, 0)
    if linktype == 228:
        return IPV4, 0
    if linktype == 229:
        return IPV6, 0
    if linktype in (0, 108):
        if not has(data, 0, 4):
            return None
        big, little = struct.unpack(">I", data[:4])[0], struct.unpack("<I", data[:4])[0]
        families = {big} if linktype == 108 else {big, little}
        if 2 in families:
            return IPV4, 4
        return (IPV6, 4) if families & {10, 24, 28, 30} else None
    return None


def ipv4(data, at, limit):
    if not has(data, at, 20) or data[at] >> 4 != 4:
        return None
    header = (data[at] & 15) * 4
    ip = Ip()
    ip.family, ip.start, ip.protocol = 4, at, data[at + 9]
    ip.source, ip.destination = data[at + 12 : at + 16], data[at + 16 : at + 20]
    bits = number16(data, at + 6)
    ip.offset = (bits & 0x1FFF) * 8
    ip.fragment = ip.offset > 0 or bool(bits & 0x2000)
    ip.ident = number16(data, at + 4)
    total = number16(data, at + 2)
    ip.payload = at + header if header >= 20 else None
    # A length of 0 is what segmentation offload leaves; a length below the header says nothing true either.
    ip.end = min(limit, at + total) if total >= header else limit
    return ip


def ipv6(data, at, limit):
    if not has(data, at, 40) or data[at] >> 4 != 6:
        return None
    ip = Ip()
    ip.family, ip.start = 6, at
    ip.source, ip.destination = data[at + 8 : at + 24], data[at + 24 : at + 40]
    ip.fragment, ip.offset, ip.ident = False, 0, None
    length = number16(data, at + 4)
    ip.end = min(limit, at + 40 + length) if length else limit
    next_header, at = data[at + 6], at + 40
    for number in itertools.count():
        ip.protocol, ip.payload = next_header, at
        if next_header not in EXTENSIONS and next_header not in (AUTHENTICATION, FRAGMENT):
            return ip
        if number == EXTENSIONS_MOST or not has(data[: ip.end], at, 8):  # the shortest there is
            ip.payload = None  # inside the extensions: the protocol is the last one named
            return ip
        if next_header in EXTENSIONS:
            step = 8 + 8 * data[at + 1]
        elif next_header == AUTHENTICATION:
            step = (data[at + 1] + 2) * 4
        else:
            step = 8
            bits = number16(data, at + 2)
            ip.fragment, ip.offset, ip.ident = True, bits & 0xFFF8, data[at + 4 : at + 8]
        next_header, at = data[at], at + step
        if ip.offset > 0:
            ip.protocol, ip.payload = next_header, at
            return ip


def network(data, kind, at, limit):
    return ipv4(data, at, limit) if kind == IPV4 else ipv6(data, at, limit)


def endpoints(ip, ports):
    """The two-way key at flow granularity."""
    a, b = (ip.source, ports[0]), (ip.destination, ports[1])
    return (ip.family, ip.protocol) + (min(a, b), max(a, b))


def vlan(linktype, data):
    """The identifiers of the outer two tags, or None."""
    at = {1: 12, 113: 14}.get(linktype)
    if linktype == 276:
        kind, at = number16(data, 0) if has(data, 0, 20) else 0, 20
    elif at is not None and has(data, at, 2):
        kind, at = number16(data, at), at + 2
    else:
        return None
    tags = []
    while kind in VLAN and len(tags) < 2 and has(data, at, 4):
        tags.append(number16(data, at) & 4095)
        kind, at = number16(data, at + 2), at + 4
    return tuple(tags) if any(tags) else None


def tunnel(data, ip):
    """(kind, identifier or None, Ip of the packet in it), or None. What is read is what was captured, to its end."""
    at = ip.payload
    if ip.offset > 0 or at is None or not has(data[: ip.end], at, 8 if ip.protocol == 17 else 1):
        return None
    kind, identifier, inner = ip.protocol, None, None
    if ip.protocol in (4, 41):
        inner = IPV4 if ip.protocol == 4 else IPV6, at
    elif ip.protocol == 47 and has(data, at, 4) and not number16(data, at) & 0x4007:
        bits, ethernet = number16(data, at), number16(data, at + 2)
        at += 8 if bits & 0x8000 else 4
        if bits & 0x2000:
            if not has(data, at, 4):
                return None
            identifier, at = data[at : at + 4], at + 4
        inner = within(data, ethernet, at + (4 if bits & 0x1000 else 0))
    elif ip.protocol == 17 and has(data, at, 16):
        kind, identifier = (17, number16(data, at + 2)), data[at + 12 : at + 15]
        if kind[1] in (4789, 8472) and data[at + 8] & 8:
            kind, inner = (17, 4789), within(data, 0x6558, at + 16)
        elif kind[1] == 6081 and data[at + 8] >> 6 == 0:
            inner = within(data, number16(data, at + 10), at + 16 + (data[at + 8] & 63) * 4)
    packet = network(data, *inner, len(data)) if inner else None
    return (kind, identifier, packet) if packet else None


def within(data, kind, at):
    """What an Ethernet type of a tunnel says: a frame, or a packet."""
    if kind == 0x6558:
        if not has(data, at, 14):
            return None
        kind, at = number16(data, at + 12), at + 14
    return ethertype(data, kind, at)


def tunnel_keys(data, ip):
    found = tunnel(data, ip)
    if not found:
        return {"tunnel": None, "inner-source": None, "inner-destination": None}
    kind, identifier, inner = found
    ends = None if identifier is not None else tuple(sorted((ip.source, ip.destination)))
    return {"tunnel": (kind, identifier, ends),
            "inner-source": (inner.family, inner.source, kind, identifier),
            "inner-destination": (inner.family, inner.destination, kind, identifier)}


def narrowed(key, bits4, bits6):
    """A key of one address with only its first bits."""
    bits = bits4 if key[0] == 4 else bits6
    size = len(key[1]) * 8
    number = int.from_bytes(key[1], "big") >> (size - min(bits, size)) << (size - min(bits, size))
    return (key[0], number.to_bytes(size // 8, "big")) + key[2:]


class Dissector:
    """Dissects a stream of packets; remembers first fragments."""

    def __init__(self, linktype):
        self.linktype = linktype
        self.firsts = {}

    def ports(self, data, ip):
        """What the transport header adds to the key; None: it is not there."""
        at = ip.payload
        if at is None:
            return None
        if ip.protocol in WITH_PORTS:
            return (number16(data, at), number16(data, at + 2)) if has(data[: ip.end], at, 4) else None
        if ip.protocol in ICMP_ECHO and has(data[: ip.end], at, 8) and data[at] in ICMP_ECHO[ip.protocol]:
            return (number16(data, at + 4),) * 2
        return None

    def fragment_id(self, ip):
        return ip.family, ip.source, ip.destination, ip.ident, ip.protocol if ip.family == 4 else None

    def quoted(self, data, ip):
        """The packet that an ICMP error quotes."""
        at = ip.payload
        if at is None or ip.protocol not in ICMP_ERRORS or not has(data[: ip.end], at, 9):
            return None
        if data[at] not in ICMP_ERRORS[ip.protocol]:
            return None
        return network(data[: ip.end], IPV4 if ip.protocol == 1 else IPV6, at + 8, ip.end)

    def later_fragment(self, ip, now):
        first = self.firsts.get(self.fragment_id(ip))
        if first and now - first[0] <= FRAGMENT_LIFE:
            return first[1]
        return endpoints(ip, (0, 0))

    def flow_key(self, data, ip, now):
        if ip.offset > 0:
            return self.later_fragment(ip, now)
        inner = self.quoted(data, ip)
        if not inner:
            key = endpoints(ip, self.ports(data, ip) or (0, 0))
        elif inner.offset > 0:  # the quoted packet's flow is that of its first fragment
            key = self.later_fragment(inner, now)
        else:
            key = endpoints(inner, self.ports(data[: ip.end], inner) or (0, 0))
        if ip.fragment:
            self.firsts[self.fragment_id(ip)] = (now, key)
        return key

    def keys(self, data, length, now):
        """{granularity: key} of a packet, or None when it is not IP."""
        found = link(self.linktype, data)
        ip = network(data, *found, len(data)) if found else None
        if not ip:
            return None
        flow = self.flow_key(data, ip, now)
        return {
            "flow": flow,
            "host-pair": (flow[0], flow[2][0], flow[3][0]) if flow[2][0] <= flow[3][0] else None,
            "source": (ip.family, ip.source),
            "destination": (ip.family, ip.destination),
            "all": (),
            "vlan": vlan(self.linktype, data),
            **tunnel_keys(data, ip),
            "ip": ip,
        }
