#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-ratelimiter as a command: exit status and the one line it says; flow limits; pipes.  command.py PROGRAM EXAMPLES"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))

import capture  # noqa: E402
import compare  # noqa: E402
import limiter  # noqa: E402
import synthetic  # noqa: E402

PROGRAM, EXAMPLES = sys.argv[1:3]
POLICY = os.path.join(EXAMPLES, "per-flow.yaml")


def run(*arguments, data=None, attach=None):
    environment = {k: v for k, v in os.environ.items() if k != "SPLITMERGE_ATTACH"}
    if attach:
        environment["SPLITMERGE_ATTACH"] = attach
    return subprocess.run([PROGRAM, *arguments], input=data, capture_output=True, env=environment, timeout=60)


class Command(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.input = self.path("in.pcap")
        capture.write_pcap(self.input, 1, synthetic.Maker("command", 1).packets(500))

    def tearDown(self):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def test_wrong_usage_and_missing_things(self):
        filtered = self.write("filter.yaml", "limits:\n  - {name: a, per: flow, rate: 1Mbit, burst: 1KiB, match: 'tcp and'}\n")
        junk = self.write("junk", "This is not a capture.\n")
        rows = [
            (2, b"--policy is needed", []),
            (2, b"--in is needed", ["--policy", POLICY]),
            (2, b"unrecognized option '--polcy'", ["--polcy", POLICY]),
            (2, b"unexpected argument 'x'", ["--policy", POLICY, "x"]),
            (2, b"--flows: expected", ["--policy", POLICY, "--flows", "many"]),
            (2, b"--memory: expected", ["--policy", POLICY, "--memory", "12"]),
            (2, b"/none: ", ["--policy", "/none", "--check"]),
            (2, filtered.encode() + b":2: limits[0].match: expected a filter", ["--policy", filtered, "--check"]),
            (2, filtered.encode() + b":2: limits[0].match: ", ["--policy", filtered, "--in", self.input]),
            (1, b"/none", ["--policy", POLICY, "--in", "/none"]),
            (1, b"junk: not a capture", ["--policy", POLICY, "--in", junk]),
            (1, b"no such interface", ["--policy", POLICY, "--in", "interface:none0"]),
            (1, b"/none/out.pcap", ["--policy", POLICY, "--in", self.input, "--out", "/none/out.pcap"]),
        ]
        for status, text, arguments in rows:
            done = run(*arguments)
            self.assertEqual(done.returncode, status, (arguments, done.stderr))
            self.assertIn(text, done.stderr)
            self.assertTrue(done.stderr.startswith(b"sm-ratelimiter: "), done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
            self.assertEqual(done.stdout, b"")

    def test_without_the_switch_it_was_started_for(self):
        done = run("--policy", POLICY, attach="/none")
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1), done.stderr)

    def test_help_and_version(self):
        self.assertTrue(run("--help").stdout.startswith(b"usage: sm-ratelimiter"))
        self.assertRegex(run("--version").stdout, rb"^sm-ratelimiter \d+\.\d+\.\d+\n$")

    def test_a_pipe_is_as_good_as_a_file(self):
        with open(self.input, "rb") as file:
            data = file.read()
        piped = run("--policy", POLICY, "--in", "-", "--out", "-", data=data)
        filed = run("--policy", POLICY, "--in", self.input, "--out", self.path("out.pcap"))
        self.assertEqual((piped.returncode, filed.returncode), (0, 0), piped.stderr + filed.stderr)
        with open(self.path("out.pcap"), "rb") as file:
            self.assertEqual(file.read(), piped.stdout)

    def test_a_file_of_prefixes_says_where_it_is_wrong(self):
        text = "limits:\n  - {name: a, rate: 1Mbit, burst: 1KiB, prefixes: {source: table.txt}}\n"
        policy = self.write("table.yaml", text)
        rows = [(b"# nothing\n\n", b"expected at least one prefix"),
                (b"10.0.0.0/8\n10.0.0.0/33", b"table.txt:2: expected a prefix such as"),
                (b"10.0.0.0/8 5", b"table.txt:1: expected a rate such as 10Mbit, got '5'"),
                (b"10.0.0.0/8 5bit 5", b"table.txt:1: expected a burst such as 16KiB, got '5'"),
                (b"10.0.0.0/8 5bit 5B x", b"table.txt:1: expected PREFIX, RATE and BURST, no more, got 'x'"),
                (b"::/8\n10.0.0.0/8\n::/8 1bit\n", b"expected each prefix once, got the same in lines 1 and 3"),
                (b"".join(b"10.%d.%d.0/24\n" % (i // 256, i % 256) for i in range(65536)),
                 b"table.txt:65535: expected fewer prefixes, 65535 with the other limits")]
        for table, complaint in rows:
            with open(self.path("table.txt"), "wb") as file:
                file.write(table)
            done = run("--policy", policy, "--check")
            self.assertEqual((done.returncode, done.stderr.count(b"\n")), (2, 1), done.stderr)
            self.assertIn(policy.encode() + b":2: limits[0].prefixes.source: ", done.stderr)
            self.assertIn(complaint, done.stderr)
        with open(self.path("table.txt"), "wb") as file:
            file.write(b"10.0.0.0/8 5bit # a word\n#\n::/8\t1bit  3B#\n".replace(b"3B#", b"3B #"))
        self.assertEqual(run("--policy", policy, "--check").returncode, 0)

    def test_ten_thousand_limits(self):
        rnd = random.Random(7)
        lines = ["10.%d.%d.0/24 %dkbit %dB" % (i // 256, i % 256, 1 + i % 40, 1000 + i % 997) for i in range(10000)]
        policy = [{"name": "many", "rate": "1Mbit", "burst": "4KiB", "prefixes": {"source": lines}, "parent": "all"},
                  {"name": "all", "per": "all", "rate": "10Mbit", "burst": "64KiB"}]
        maker, packets, now = synthetic.Maker("many", 1), [], 10**18
        few = rnd.sample(range(11000), 60)  # some beyond the last prefix
        for _ in range(400):
            net, now = rnd.choice(few), now + rnd.randrange(10**7) // 1000 * 1000
            source = bytes([10, net // 256, net % 256, rnd.randrange(256)])
            data = b"\2" * 12 + b"\x08\0" + maker.ip4(source, bytes([192, 0, 2, 1]), 17, maker.transport(17, 400))
            packets.append(capture.Packet(now, len(data), len(data), data))
        capture.write_pcap(self.input, 1, packets)
        trace = capture.read(self.input)
        rows = limiter.dissected(trace)
        self.assertIsNone(compare.compare(PROGRAM, policy, self.input, trace, rows, self.folder.name))
        verdicts = [verdict for verdict, _, _ in limiter.verdicts(policy, 1, rows)]
        self.assertGreater(verdicts.count("limit:many"), 20)
        self.assertGreater(verdicts.count("pass"), 100)

    def test_an_address_that_is_not_this_hosts(self):
        key = self.write("key", "a secret of several hosts")
        os.chmod(key, 0o600)
        policy = self.write("policy.yaml", f"""limits: [{{name: all, per: all, rate: 1Mbit, burst: 1KiB, distribute: pool}}]
peers: {{host: 1, home: 1, listen: '203.0.113.1:7946', key: {key}}}
""")
        done = run("--policy", policy, "--in", self.input)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"peers.listen: the address cannot be had", done.stderr)

    def report(self, policy, *arguments):
        """The report of a run that ends well and accounts for all packets."""
        paths = [self.write("policy.yaml", policy), self.path("out.pcap"), self.path("report.json")]
        done = run("--policy", paths[0], "--in", self.input, "--out", paths[1], "--report", paths[2], *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        with open(paths[2]) as file:
            report = json.load(file)
        packets = report["packets"]
        self.assertEqual(packets["in"], packets["out"] + sum(packets["dropped"].values()))
        self.assertEqual(packets["out"], len(capture.read(paths[1]).packets))
        return report

    def test_a_new_key_is_dropped_where_no_bucket_can_be_kept(self):
        slow = "limits: [{name: slow, per: flow, rate: 1bit, burst: 1GiB}]"
        self.assertEqual(self.report(slow)["packets"]["dropped"].get("flow_limit", 0), 0)
        for arguments in (["--flows", "5"], ["--memory", "1B"]):
            report = self.report(slow, *arguments)
            self.assertGreater(report["packets"]["dropped"].get("flow_limit", 0), 0, arguments)
            self.assertLessEqual(report["flows"]["live"], 5)

    def test_buckets_that_have_been_full_for_long_are_gone(self):
        flows = self.report("limits: [{name: wide, per: flow, rate: 1000Gbit, burst: 1GiB}]")["flows"]
        self.assertGreater(flows["created"], 100)
        self.assertLess(flows["live"], 20)
        self.assertEqual(flows["created"], flows["live"] + flows["expired"])

    def test_a_bucket_is_kept_until_it_has_been_full_for_a_second(self):
        """100 bytes a packet, 1 byte a ms: one at 0 is full after 100 ms, with one more at 50 ms after 200 ms."""
        maker = synthetic.Maker("kept", 101)

        def packet(ms, host):
            data = maker.ip4(maker.hosts4[host], maker.hosts4[4], 17, b"\0\1\0\2\0\x08\0\0")
            return capture.Packet(1700000000 * 10**9 + ms * 10**6, len(data), 100, data)

        for taken, last, live in (([0], 1099, 2), ([0], 1100, 1), ([0, 50], 1199, 2), ([0, 50], 1200, 1),
                                  ([0, 50, 1050], 2149, 2), ([0, 50, 1050], 2150, 1)):
            capture.write_pcap(self.input, 101, [packet(ms, 0) for ms in taken] + [packet(last, 1)])
            flows = self.report("limits: [{name: slow, per: flow, rate: 8kbit, burst: 1KiB}]")["flows"]
            self.assertEqual((flows["created"], flows["live"]), (2, live), (taken, last))

    def test_a_limit_of_several_hosts_alone(self):
        """An exchange begins and ends with the program; what it has not been leased does not pass."""
        key = self.write("key", "a secret of several hosts")
        os.chmod(key, 0o600)
        policy = f"""limits: [{{name: all, per: all, rate: 8bit, burst: 1KiB, distribute: exact}}]
peers: {{host: 1, home: 1, listen: '127.0.0.1:0', key: {key}}}
"""
        self.assertEqual(self.check(policy).returncode, 2, "port 0 is none")
        report = self.report(policy.replace(":0'", ":47946'"))
        nothing = self.report("limits: [{name: none, per: all, rate: 8bit, burst: 1B}]")
        self.assertEqual(report["packets"]["out"], nothing["packets"]["out"], "what is not IP")
        os.chmod(key, 0o644)
        done = self.check(policy.replace(":0'", ":47946'"))
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"peers.key: expected a file that only its owner may use (mode 0600)", done.stderr)

    def check(self, policy):
        return run("--policy", self.write("policy.yaml", policy), "--check")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
