# SPDX-License-Identifier: BSD-2-Clause
"""What the live tests share: where the programs are, how to enter namespaces or skip, and their checks."""

import argparse
import os
import re
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "tools"), os.path.join(HERE, "..", "kit")]

import lab  # noqa: E402
from captures import records  # noqa: E402, F401: the tests have it from here
from checks import expect, finish  # noqa: E402, F401: likewise

SKIPPED = 77
SAMPLES = os.path.join(HERE, "..", "samples")


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", required=True, help="the build tree whose programs are tested")
    parser.add_argument("--slow", action="store_true", help="the programs are instrumented: lower rates, fewer rounds")
    given = parser.parse_args()
    given.build = os.path.abspath(given.build)
    return given


def enter_or_skip():
    """Go on inside namespaces, or end the test as skipped."""
    try:
        lab.enter()
    except lab.Unavailable as reason:
        print(f"skipped: no namespaces here: {reason}")
        sys.exit(SKIPPED)


def expect_report(report, moves):
    """The promises as a run's own report gives them."""
    if not expect("packets" in report and "invariants" in report, "report: of a whole run", report):
        return
    packets, held = report["packets"], report["invariants"]
    expect(all(value == "held" for value in held.values()) and len(held) == 3, "report: every invariant held", held)
    expect(packets["in"] + packets["generated"] == packets["out"] + sum(packets["dropped"].values()),
           f"report: {packets['in']} in + {packets['generated']} generated = {packets['out']} out + dropped", packets)
    expect(not {"hold", "pool"} & set(packets["dropped"]), "report: nothing dropped for want of room in a hold or pool",
           packets["dropped"])
    if moves:
        done = report["moves"]
        expect(done["completed"] > 0, f"report: {done['completed']} moves completed, pause {done['pause_us']}", done)


def expect_no_sanitizer(text):
    found = re.search(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:", text)
    expect(not found, "no sanitizer spoke", text[-2000:])


def expect_alone():
    """Nothing that was started may be left."""
    left = lab.wait_until(lambda: not lab.others(), 15) or lab.others()  # leak checks at exit take their time
    expect(left is True, "nothing is left running", left)
