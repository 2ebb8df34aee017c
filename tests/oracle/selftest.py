#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The oracle itself: keys and verdicts worked out by hand."""

import os
import struct
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import capture  # noqa: E402
import compare  # noqa: E402
import dissect  # noqa: E402
import limiter  # noqa: E402

A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


def ip4(source, destination, protocol, payload, bits=0):
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 9, bits, 64, protocol, 0, source, destination) + payload


def ethernet(payload, kind=0x0800):
    return b"\2" * 12 + struct.pack(">H", kind) + payload


def udp(source, destination, size=0):
    return struct.pack(">HHHH", source, destination, 8 + size, 0) + bytes(size)


def keys(data, linktype=1):
    return dissect.Dissector(linktype).keys(data, len(data), 0)


class Keys(unittest.TestCase):
    flow = (4, 17, (A, 1000), (B, 53))

    def test_both_directions_are_one_flow(self):
        there, back = ethernet(ip4(A, B, 17, udp(1000, 53))), ethernet(ip4(B, A, 17, udp(53, 1000)))
        self.assertEqual(keys(there)["flow"], self.flow)
        self.assertEqual(keys(back)["flow"], self.flow)
        self.assertEqual(keys(back)["host-pair"], (4, A, B))
        self.assertEqual(keys(back)["source"], (4, B))

    def test_encapsulations(self):
        ip = ip4(A, B, 17, udp(1000, 53))
        for kind, outer in ((0x8100, b"\0\1\x08\0"), (0x88A8, b"\0\1\x81\0\0\2\x08\0"), (0x8847, b"\0\1\0\x40\0\1\1\x40"),
                            (0x8864, b"\x11\0\0\1\0\0\0\x21")):
            self.assertEqual(keys(ethernet(outer + ip, kind))["flow"], self.flow)
        self.assertEqual(keys(ip, 101)["flow"], self.flow)
        self.assertEqual(keys(b"\2\0\0\0" + ip, 0)["flow"], self.flow)
        self.assertEqual(keys(bytes(14) + b"\x08\0" + ip, 113)["flow"], self.flow)
        self.assertIsNone(keys(ethernet(ip, 0x0806)))

    def test_an_icmp_error_has_the_key_of_what_it_quotes(self):
        router = bytes([10, 9, 9, 9])
        error = ethernet(ip4(router, A, 1, b"\x0b\0\0\0\0\0\0\0" + ip4(A, B, 17, udp(1000, 53))))
        self.assertEqual(keys(error)["flow"], self.flow)
        self.assertEqual(keys(error)["host-pair"], (4, A, B))
        self.assertEqual(keys(error)["source"], (4, router))

    def test_fragments_follow_their_first_for_30_seconds(self):
        dissector = dissect.Dissector(1)
        first = ethernet(ip4(A, B, 17, udp(1000, 53), 0x2000))
        later = ethernet(ip4(A, B, 17, bytes(8), 1))
        alone = (4, 17, (A, 0), (B, 0))
        self.assertEqual(dissector.keys(later, 42, 0)["flow"], alone)
        self.assertEqual(dissector.keys(first, 42, 0)["flow"], self.flow)
        self.assertEqual(dissector.keys(later, 42, 30 * 10**9)["flow"], self.flow)
        self.assertEqual(dissector.keys(later, 42, 30 * 10**9 + 1)["flow"], alone)

    def test_tags(self):
        ip = ip4(A, B, 17, udp(1000, 53))
        self.assertIsNone(keys(ethernet(ip))["vlan"])
        self.assertIsNone(keys(ethernet(b"\x20\0\x08\0" + ip, 0x8100))["vlan"])
        self.assertEqual(keys(ethernet(b"\x20\5\x08\0" + ip, 0x8100))["vlan"], (5,))
        self.assertEqual(keys(ethernet(b"\0\1\x81\0\0\2\x08\0" + ip, 0x88A8))["vlan"], (1, 2))

    def test_tunnels(self):
        inner, outer = ip4(A, B, 17, udp(1000, 53)), (bytes([192, 0, 2, 2]), bytes([192, 0, 2, 1]))
        vxlan = udp(7777, 4789) + b"\x08\0\0\0\0\1\2\0" + ethernet(inner)
        found = keys(ethernet(ip4(*outer, 17, vxlan)))
        self.assertEqual(found["tunnel"], ((17, 4789), b"\0\1\2", None))
        self.assertEqual(found["inner-source"], (4, A, (17, 4789), b"\0\1\2"))
        found = keys(ethernet(ip4(*outer, 4, inner)))
        self.assertEqual(found["tunnel"], (4, None, (outer[1], outer[0])))
        self.assertEqual(found["inner-destination"], (4, B, 4, None))
        self.assertEqual(keys(ethernet(ip4(*outer, 47, b"\x20\0\x08\0\0\0\0\7" + inner)))["tunnel"], (47, b"\0\0\0\7", None))
        self.assertIsNone(keys(ethernet(inner))["tunnel"])

    def test_prefixes(self):
        self.assertEqual(dissect.narrowed((4, bytes([10, 1, 2, 255])), 23, 64), (4, bytes([10, 1, 2, 0])))
        self.assertEqual(dissect.narrowed((6, b"\xff" * 16), 23, 65), (6, b"\xff" * 8 + b"\x80" + bytes(7)))

    def test_echoes_have_their_identifier(self):
        self.assertEqual(keys(ethernet(ip4(A, B, 1, b"\x08\0\0\0\0\7\0\1")))["flow"], (4, 1, (A, 7), (B, 7)))


class Verdicts(unittest.TestCase):
    def verdicts(self, policy, packets):
        trace = capture.Capture(1, False, [capture.Packet(ns, len(d), n, d) for ns, n, d in packets], None)
        return [v for v, _, _ in limiter.verdicts(policy, 1, limiter.dissected(trace))]

    def test_a_byte_takes_exactly_its_time(self):
        data = ethernet(ip4(A, B, 17, udp(1000, 53)))
        policy = [{"name": "x", "per": "flow", "rate": "3bit", "burst": "100B"}]
        third = 8 * 10**9 // 3  # rounded down: a nanosecond too early
        self.assertEqual(self.verdicts(policy, [(0, 100, data), (third, 1, data)]), ["pass", "limit:x"])
        self.assertEqual(self.verdicts(policy, [(0, 100, data), (third + 1, 1, data)]), ["pass", "pass"])

    def test_time_does_not_go_back(self):
        data = ethernet(ip4(A, B, 17, udp(1000, 53)))
        policy = [{"name": "x", "per": "all", "rate": "1pps", "burst": "1"}]
        rows = [(5 * 10**9, 1, data), (4 * 10**9, 1, data), (6 * 10**9 - 1, 1, data), (6 * 10**9, 1, data)]
        self.assertEqual(self.verdicts(policy, rows), ["pass", "limit:x", "limit:x", "pass"])

    def test_the_first_in_file_order_that_drops(self):
        data = ethernet(ip4(A, B, 17, udp(1000, 53)))
        policy = [{"name": "m", "per": "all", "rate": "1pps", "burst": "1", "exceed": {"mark": {"dscp": "CS1"}}},
                  {"name": "b", "per": "all", "rate": "1pps", "burst": "2", "parent": "c"},
                  {"name": "c", "per": "all", "rate": "1pps", "burst": "2"},
                  {"name": "e", "per": "all", "rate": "1pps", "burst": "3", "exceed": {"mark": "ce"}}]
        self.assertEqual(self.verdicts(policy, [(0, 1, data)] * 3), ["pass", "mark", "limit:b"])

    def test_what_the_root_has_left_is_borrowed(self):
        data = ethernet(ip4(A, B, 17, udp(1000, 53)))
        other = ethernet(ip4(B, A, 17, udp(1000, 53)))
        policy = [{"name": "root", "per": "all", "rate": "1pps", "burst": "10"},
                  {"name": "a", "per": "source", "rate": "1pps", "ceil": "9pps", "burst": "2", "parent": "root",
                   "prefixes": {"source": ["10.0.0.1"]}},
                  {"name": "b", "per": "source", "rate": "1pps", "burst": "3", "parent": "root",
                   "prefixes": {"source": ["10.0.0.2"]}}]
        # Two within the guarantee of `a`; then its ceiling's bucket is empty, until 1/9 s later it has one, borrowed.
        later = 10**9 // 9 + 1
        rows = [(0, 1, data)] * 3 + [(later, 1, data)]
        self.assertEqual(self.verdicts(policy, rows), ["pass", "pass", "limit:a", "pass"])
        # A borrower leaves the five that the children may come for at once; they get them.
        rows = [(later * i, 1, data) for i in range(8)] + [(later * 7, 1, other)] * 4
        got = self.verdicts(policy, rows)
        self.assertEqual(got[:5], ["pass"] * 5)
        self.assertEqual(got[5:8], ["limit:root"] * 3)
        self.assertEqual(got[8:], ["pass"] * 3 + ["limit:b"])

    def test_a_mark_keeps_the_checksum_right(self):
        import synthetic
        header = bytearray(ip4(A, B, 17, b""))
        header[10:12] = struct.pack(">H", synthetic.checksum(bytes(header)))
        data = ethernet(bytes(header))
        limit = limiter.Limit({"name": "m", "per": "all", "rate": "1pps", "burst": "1", "exceed": {"mark": {"dscp": "EF"}}})
        changed = limiter.marked(limit, keys(data)["ip"], data)[14:]
        self.assertEqual(changed[1], 46 << 2)
        self.assertEqual(synthetic.checksum(changed), 0)


class Files(unittest.TestCase):
    def test_a_written_capture_reads_the_same(self):
        packets = [capture.Packet(1700000000123456000, 3, 60, b"abc"), capture.Packet(1700000000123457000, 0, 0, b"")]
        with tempfile.TemporaryDirectory() as folder:
            for nanoseconds in (False, True):
                path = os.path.join(folder, "x.pcap")
                capture.write_pcap(path, 101, packets, nanoseconds)
                self.assertEqual(capture.read(path), capture.Capture(101, nanoseconds, packets, None))
                with open(path, "r+b") as file:
                    file.truncate(os.path.getsize(path) - 1)
                cut = capture.read(path)
                self.assertEqual((cut.packets, bool(cut.damage)), (packets[:1], True))

    def test_differences_are_found(self):
        packet = capture.Packet(1, 1, 1, b"a")
        self.assertIsNone(compare.first_difference([(1, packet)], [packet]))
        self.assertIsNotNone(compare.first_difference([(1, packet)], []))
        self.assertIsNotNone(compare.first_difference([(1, packet)], [packet._replace(data=b"b")]))
        self.assertIsNotNone(compare.first_difference([(1, packet)], [packet._replace(stamp=2)]))


if __name__ == "__main__":
    unittest.main()
