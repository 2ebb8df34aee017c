#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""docs/write-a-middlebox.md shows all of middleboxes/template, as it is compiled; its commands run.

usage: tutorial.py SOURCE BUILD
"""
import os
import re
import subprocess
import sys
import tempfile

source, build = map(os.path.abspath, sys.argv[1:3])
failures = 0


def check(what, good, detail=""):
    global failures
    print("%s: %s" % ("ok" if good else "FAILED", what))
    if not good:
        failures += 1
        print(detail)


def read(name):
    with open(os.path.join(source, name), encoding="utf-8") as file:
        return file.read()


def lines(text):
    """Without the empty ones: blocks begin and end between them."""
    return [line for line in text.splitlines() if line.strip()]


text = read("docs/write-a-middlebox.md")
shown = {}
for path, block in re.findall(r"<!-- code: (\S+) -->\n```\w*\n(.*?)```", text, re.S):
    shown.setdefault(path, []).extend(lines(block))
check("every block of code names its file", text.count("```") == 2 * len(re.findall(r"<!-- code: ", text)))
folder = "middleboxes/template"
check("every file is shown", sorted(shown) == sorted(os.path.join(folder, name) for name in os.listdir(
    os.path.join(source, folder))), shown.keys())
for path in shown:
    real = lines(read(path))
    different = next((i for i, (a, b) in enumerate(zip(shown[path], real)) if a != b), min(len(shown[path]), len(real)))
    check(path + " is shown as it is, whole and in order", shown[path] == real,
          "shown: %s\nis:    %s" % (shown[path][different:different + 1], real[different:different + 1]))
check("the middlebox has fewer than 120 lines", read(folder + "/guard.c").count("\n") < 120)

with tempfile.TemporaryDirectory(prefix="splitmerge-tutorial-") as place:
    for name in os.listdir(source):
        if name not in ("build", ".git"):
            os.symlink(os.path.join(source, name), os.path.join(place, name))
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(place, "run"))
    env["PATH"] = ":".join([os.path.join(build, "orchestrator"), os.path.join(build, folder), env["PATH"]])
    for command in re.findall(r"^    (guard .*|smctl run .*)$", text, re.M):
        done = subprocess.run(["bash", "-ec", command], cwd=place, env=env, timeout=120, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        check(command, done.returncode == 0 and os.path.exists(os.path.join(place, "guarded.pcap")), done.stdout)
sys.exit(1 if failures else 0)
