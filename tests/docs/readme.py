#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every command in README.md runs, and its middlebox compiles and counts.

usage: readme.py SOURCE BUILD

Blocks of commands carry a mark in a comment before them:
  readme   run in order in a folder that looks like the tree, but for building it
  programs likewise; programs that are not instrumented load the drop-in, in an instrumented build behind its sanitizer
  p0f      likewise; a build without p0f has none
  operate  run against a service on the generator, since interfaces need root
"""
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402

source, build = map(os.path.abspath, sys.argv[1:3])
text = open(os.path.join(source, "README.md")).read()


def block(mark):
    found = re.search(r"<!-- run: %s -->\n((?:    .*\n)+)" % mark, text)
    if not found:
        sys.exit("README.md has no block of commands marked '%s'" % mark)
    return re.sub(r"^    ", "", found.group(1), flags=re.M)


def environment(folder):
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
    env["PATH"] = os.path.join(build, "orchestrator") + ":" + env["PATH"]
    return env


def tree(folder):
    """A folder where the README's paths mean this source and this build."""
    for name in os.listdir(source):
        if name not in ("build", ".git"):
            os.symlink(os.path.join(source, name), os.path.join(folder, name))
    os.mkdir(os.path.join(folder, "build"))
    os.symlink(build, os.path.join(folder, "build", "release"))


def programs(folder):
    env, flags = environment(folder), os.environ.get("SM_TEST_FLAGS", "")
    if "thread" in flags:
        print("note: what is not instrumented cannot load a library that needs the race detector's runtime")
        return
    if "address" in flags:
        library = subprocess.run(["cc", "-print-file-name=libasan.so"], stdout=subprocess.PIPE, text=True, check=True)
        env.update(LD_PRELOAD=library.stdout.strip(), ASAN_OPTIONS="detect_leaks=0")
    result = subprocess.run(["bash", "-ec", block("programs")], cwd=folder, env=env, timeout=120,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(result.returncode == 0 and "three saw what one sees" in result.stdout, "the commands that scale a program",
          result.stdout)


def p0f(folder):
    if not os.path.exists(os.path.join(build, "middleboxes", "p0f", "sm-p0f")):
        print("note: p0f is not in this build")
        return
    # p0f compares names beyond the end of the shorter one; the race detector cannot be told to let it.
    if "thread" in os.environ.get("SM_TEST_FLAGS", ""):
        print("note: p0f's own sources are not run under the race detector")
        return
    env = dict(environment(folder), ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":strict_memcmp=0")
    result = subprocess.run(["bash", "-ec", block("p0f")], cwd=folder, env=env, timeout=120,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(result.returncode == 0 and "three say what one says" in result.stdout, "the commands that scale p0f",
           result.stdout)


def by_hand(folder):
    commands = "".join(line for line in block("readme").splitlines(True) if not line.startswith("cmake"))
    result = subprocess.run(["bash", "-ec", commands], cwd=folder, env=environment(folder), timeout=120,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(result.returncode == 0 and "the same file" in result.stdout, "the commands that scale a service by hand",
          result.stdout)


SERVICE = """service: readme
middlebox: {exec: sm-ratelimiter, args: [--policy, docs/examples/policy.yaml]}
replicas: {start: 1, min: 1, max: 8}
mode: inline
ports:
  in:  {generator: {flows: 1000, size: 64, rate: 20kpps}}
  out: {discard: true}
limits: {flows: 100k, memory: 64MiB}
"""


def operate(folder):
    with open(os.path.join(folder, "readme.yaml"), "w") as file:
        file.write(SERVICE)
    env = environment(folder)
    service = subprocess.Popen(["smctl", "run", "readme.yaml"], cwd=folder, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(100):
            if subprocess.run(["smctl", "status"], cwd=folder, env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)
        for command in block("operate").splitlines():
            result = subprocess.run(["bash", "-c", command], cwd=folder, env=env, timeout=60, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True)
            expect(result.returncode == 0, command, result.stdout)
        result = subprocess.run(["smctl", "stop"], cwd=folder, env=env, timeout=60, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
        expect(result.returncode == 0, "smctl stop", result.stdout)
        output, _ = service.communicate(timeout=60)
        expect(service.returncode == 0, "the service ends well", output)
    finally:
        if service.poll() is None:
            service.terminate()
            service.wait(30)


def middlebox(folder):
    code = re.search(r"```c\n(.*?)```", text, re.S).group(1)
    with open(os.path.join(folder, "count.c"), "w") as file:
        file.write("#include <splitmerge/splitmerge.h>\n" + code)
    library = os.path.join(build, "runtime")
    sanitize = [flag for flag in os.environ.get("SM_TEST_FLAGS", "").split() if flag]
    result = subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", *sanitize,
                             "-I", os.path.join(source, "include"), "-I", os.path.join(build, "include"),
                             "count.c", "-o", "count", "-L", library, "-lsplitmerge", "-Wl,-rpath," + library],
                            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(result.returncode == 0, "the middlebox compiles", result.stdout)
    os.symlink(os.path.join(source, "tests/samples/flows.pcap"), os.path.join(folder, "in.pcap"))
    result = subprocess.run(["./count"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    same = result.returncode == 0 and \
        open(os.path.join(folder, "in.pcap"), "rb").read() == open(os.path.join(folder, "out.pcap"), "rb").read()
    expect(same, "the middlebox runs, and passes what it counts", result.stdout)


with tempfile.TemporaryDirectory(prefix="splitmerge-readme-") as base:
    for step in (by_hand, programs, p0f, operate, middlebox):
        place = os.path.join(base, step.__name__)
        os.mkdir(place)
        tree(place)
        step(place)
checks.finish()
