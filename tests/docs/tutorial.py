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

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402

source, build = map(os.path.abspath, sys.argv[1:3])


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
expect(text.count("```") == 2 * len(re.findall(r"<!-- code: ", text)), "every block of code names its file")
folder = "middleboxes/template"
expect(sorted(shown) == sorted(os.path.join(folder, name) for name in os.listdir(
    os.path.join(source, folder))), "every file is shown", shown.keys())
for path in shown:
    real = lines(read(path))
    different = next((i for i, (a, b) in enumerate(zip(shown[path], real)) if a != b), min(len(shown[path]), len(real)))
    expect(shown[path] == real, path + " is shown as it is, whole and in order",
          "shown: %s\nis:    %s" % (shown[path][different:different + 1], real[different:different + 1]))
expect(read(folder + "/guard.c").count("\n") < 120, "the middlebox has fewer than 120 lines")

with tempfile.TemporaryDirectory(prefix="splitmerge-tutorial-") as place:
    for name in os.listdir(source):
        if name not in ("build", ".git"):
            os.symlink(os.path.join(source, name), os.path.join(place, name))
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(place, "run"))
    env["PATH"] = ":".join([os.path.join(build, "orchestrator"), os.path.join(build, folder), env["PATH"]])
    for command in re.findall(r"^    (guard .*|smctl run .*)$", text, re.M):
        done = subprocess.run(["bash", "-ec", command], cwd=place, env=env, timeout=120, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        expect(done.returncode == 0 and os.path.exists(os.path.join(place, "guarded.pcap")), command, done.stdout)
checks.finish()
