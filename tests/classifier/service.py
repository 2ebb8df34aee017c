#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The classifier as a service (kit/logged.py): while flows are being detected, each gets the line that it gets unsplit.

usage: service.py BUILD CAPTURE        (SM_SEED fixes the events, SM_FULL=1 runs more of them)
"""
import collections
import json
import os
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kit"))

import logged  # noqa: E402

build, capture = map(os.path.abspath, sys.argv[1:3])
classifier = os.path.join(build, "middleboxes/classifier/sm-classifier")


def different(log):
    """Each line once: it is written at least once."""
    return collections.Counter({line for line in log if json.loads(line)})


def without_ethernet():
    """A capture of bare IP packets: their headers begin at 0."""
    with tempfile.TemporaryDirectory(prefix="sm-") as folder:
        logged.run(folder, classifier, "--log", "raw", "--in", os.path.join(here, "..", "samples", "raw.pcap"))
        with open(os.path.join(folder, "raw"), encoding="ascii") as file:
            said = {json.loads(line)["protocol"] for line in file}
        if not said >= {"ICMP", "ICMPV6", "HTTP"}:
            sys.exit("FAIL bare IP packets are taken for %s" % said)


without_ethernet()
logged.compare(build, classifier, [], capture, "lines", different, events=16, kills=1, left=lambda _: "")
