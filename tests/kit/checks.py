# SPDX-License-Identifier: BSD-2-Clause
"""Checks of a test that is a script: one line for each, the details only when it failed."""

import sys

failures = 0


def expect(condition, what, *details):
    """Whether it holds."""
    global failures
    print(f"{'ok  ' if condition else 'FAIL'} {what}", flush=True)
    if not condition:
        failures += 1
        for detail in details:
            print(f"     {detail}")
    return bool(condition)


def finish():
    """End the test: 1 where a check failed."""
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)
