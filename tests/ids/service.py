#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sm-ids as a service (kit/logged.py): each alert is there as often as unsplit, and what an earlier run left in the log
does not stay.

usage: service.py BUILD RULES CAPTURE        (SM_SEED fixes the events, SM_FULL=1 runs more of them)
"""
import collections
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import logged  # noqa: E402

build, rules, capture = map(os.path.abspath, sys.argv[1:4])
alone = logged.compare(
    build, os.path.join(build, "middleboxes/ids/sm-ids"), ["--rules", rules], capture, "alerts",
    lambda log: collections.Counter(line for line in log if json.loads(line)["event_type"] == "alert"),
    events=12, kills=2, left=lambda text: 2 * text)
if alone.total() < 10:
    sys.exit("FAIL too few alerts to tell")
