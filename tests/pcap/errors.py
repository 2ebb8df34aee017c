#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What goes wrong with the drop-in is said in one line: sending, opening, looking for devices among folders that are no
service's, collecting outputs. And a program's handler has run when its loop returns.

usage: errors.py --build BUILD --errors PROGRAM [--preload LIBRARY]
"""

import argparse
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402

CAPTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "samples", "http.pcap")
OPENED = """findalldevs 0
  sm:errors: splitmerge service errors
another service: sm:another: this process is a replica of service errors, not of another
once more: sm:errors: it is open in this process already, which is one replica
"""
TAP = "send: the service is a tap, it has no way out"
EARLY = "send: only while a packet is in hand, which it is sent behind"
MANY = "send: at most two packets of 1792 bytes for each that came in"
INLINE_LINES = f"""{OPENED}inject, before a packet: -1 {EARLY}
inject, too long: -1 {MANY}
sendpacket, less than nothing: -1 {MANY}
inject: 60 
sendpacket: 0 
inject, a third: -1 {MANY}
sendpacket, a third: -1 {MANY}
loop 0, handled 1
inject, behind the end: -1 {EARLY}
"""
TAP_LINES = f"""{OPENED}inject, before a packet: -1 {TAP}
inject, too long: -1 {TAP}
sendpacket, less than nothing: -1 {TAP}
inject: -1 {TAP}
sendpacket: -1 {TAP}
inject, a third: -1 {TAP}
sendpacket, a third: -1 {TAP}
loop 0, handled 1
inject, behind the end: -1 {TAP}
"""
ALONE_LINES = """findalldevs 0
another service: sm:another: a service starts its replicas itself: this program is to be the middlebox of another's service file
open: sm:errors: a service starts its replicas itself: this program is to be the middlebox of errors's service file
"""


class Test:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.env = dict(os.environ, SPLITMERGE_RUN=self.path("run"))
        if options.preload:
            self.env.update(LD_PRELOAD=options.preload, ASAN_OPTIONS="detect_leaks=0")

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def run(self, mode, args, *more):
        """smctl's exit status and what it said."""
        with open(self.path("service.yaml"), "w", encoding="ascii") as file:
            file.write(f"service: errors\nmiddlebox: {{exec: {self.options.errors}, args: {json.dumps(args)}}}\nmode: {mode}\n"
                       f"ports: {{in: {{pcap: {CAPTURE}}}{', out: {pcap: out.pcap}' if mode == 'inline' else ''}}}\n")
        done = subprocess.run([os.path.join(self.options.build, "orchestrator", "smctl"), "run", "service.yaml", "--report",
                               "report.json", *more], cwd=self.folder, env=self.env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=100)
        return done.returncode, done.stdout

    def lines(self, what, seen, expected):
        expect(seen == expected, what, seen)

    def sending(self):
        status, said = self.run("inline", ["sm:{service}", "lines"])
        self.lines("inline: each call says what is wrong with it", self.read("lines"), INLINE_LINES)
        packets = json.loads(self.read("report.json"))["packets"]
        expect(status == 0 and packets["generated"] == 2, "what was sent has left, and nothing else", said, packets)
        status, said = self.run("tap", ["sm:{service}", "lines"])
        self.lines("tap: nothing can be sent", self.read("lines"), TAP_LINES)
        expect(status == 0, "and it ends well", said)

    def strangers(self):
        """In the folder of services: one that has ended, a file, a folder of something else, a link to nowhere."""
        os.makedirs(self.path("run/gone"))
        os.makedirs(self.path("run/something/lock"))
        os.makedirs(self.path("run/not a name"))
        open(self.path("run/gone/lock"), "w", encoding="ascii").close()
        open(self.path("run/file"), "w", encoding="ascii").close()
        os.symlink("nowhere", self.path("run/link"))

    def alone(self):
        """By hand: no service is running, with its folder and without."""
        library = glob.glob(os.path.join(self.options.build, "runtime/pcap/libsplitmerge-pcap.so"))
        preload = ":".join(filter(None, (self.options.preload, *library)))
        for run in self.env["SPLITMERGE_RUN"], self.path("none"):
            subprocess.run([self.options.errors, "sm:errors", "lines"], cwd=self.folder, check=True, timeout=60,
                           env=dict(self.env, SPLITMERGE_RUN=run, LD_PRELOAD=preload))
            self.lines("without a service there is no device", self.read("lines"), ALONE_LINES)

    def collecting(self):
        for args, target, status, line in (
                (["sm:{service}", "lines"], "all", 2, r"--collect: expected \{replica\} in an argument or the output"),
                (["sm:{service}-{replica}", "{replica}"], "all", 2, "--collect all: expected a folder, for 2 outputs"),
                (["sm:{service}", "lines-{replica}"], "none/all", 1, "--collect none/all: No such file or directory"),
                (["sm:{service}", "lines-{replica}"], "/dev/full", 1, "--collect /dev/full: No space left on device")):
            done, said = self.run("tap", args, "--collect", target)
            found = [text for text in said.splitlines() if re.search(line, text)]
            expect(done == status and len(found) == 1, f"--collect {target} of {args[1]}: {line}", done, said)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--errors", required=True)
    parser.add_argument("--preload", help="what has to be loaded before the drop-in: a sanitizer's library")
    options = parser.parse_args()
    options.build, options.errors = map(os.path.abspath, (options.build, options.errors))
    with tempfile.TemporaryDirectory() as folder:
        test = Test(options, folder)
        test.strangers()
        test.sending()
        test.alone()
        test.collecting()
    checks.finish()


main()
