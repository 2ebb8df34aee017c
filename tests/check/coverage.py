#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every check of the arena's checker was triggered by a plant: what the plants found, against what can be said.

usage: coverage.py SOURCE PROGRAM...
"""
import os
import re
import subprocess
import sys

SOURCES = ("runtime/state/check.c", "runtime/switch/check.c", "runtime/state/journal.c")
# What cannot be planted: the checker's own lack of memory.
NEVER = {"no memory to check with"}

source = sys.argv[1]
said = []
for program in sys.argv[2:]:
    done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if done.returncode != 0:
        print(done.stdout)
        sys.exit("%s failed" % program)
    said += re.findall(r"found: (.*)", done.stdout)


def pattern(text):
    """A printf format as a regular expression over whole lines."""
    return re.compile("".join(".*" if part.startswith("%") else re.escape(part)
                              for part in re.split(r"(%[0-9]*(?:ll|l|z)?[a-z])", text)))


failures = 0
formats = []
for name in SOURCES:
    with open(os.path.join(source, name), encoding="utf-8") as file:
        text = re.sub(r'"\s*\n\s*"', "", file.read())
    found = re.findall(r'\breport\(\s*&?\w+,\s*"([^"]*)"', text)
    if name.endswith("journal.c"):
        found = re.findall(r'"((?:it|its) [^"]*)"', text)
    formats += [(name, one) for one in found]
for name, one in formats:
    if one in NEVER:
        continue
    if not any(pattern(one).search(line) for line in said):
        failures += 1
        print("FAILED %s: never found: %s" % (name, one))
print("%d checks, %d findings planted, %d never found" % (len(formats), len(said), failures))
sys.exit(1 if failures or len(formats) < 30 else 0)
