#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every command in README.md runs, and its middlebox compiles and counts.

usage: readme.py SOURCE BUILD

Blocks of commands carry a mark in a comment before them:
  readme   run in order in a folder that looks like the tree, but for building it
  programs likewise; programs that are not instrumented load the drop-in, in an instrumented build behind its sanitizer
  operate  run against a service on the generator, since interfaces need root
"""
import os
import re
import subprocess
import sys
import tempfile
import time

source, build = map(os.path.abspath, sys.argv[1:3])
text = open(os.path.join(source, "README.md")).read()
failures = 0


def block(mark):
    found = re.search(r"<!-- run: %s -->\n((?:    .*\n)+)" % mark, text)
    if not found:
        sys.exit("README.md has no block of commands marked '%s'" % mark)
    return re.sub(r"^    ", "", found.group(1), flags=re.M)


def check(what, condition, detail=""):
    global failures
    print("%s: %s" % ("ok" if condition else "FAILED", what))
    if not condition:
        failures += 1
        print(detail)


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
    check("the commands that scale a program", result.returncode == 0 and "three saw what one sees" in result.stdout,
          result.stdout)


def by_hand(folder):
    commands = "".join(line for line in block("readme").splitlines(True) if not line.startswith("cmake"))
    result = subprocess.run(["bash", "-ec", commands], cwd=folder, env=environment(folder), timeout=120,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check("the commands that scale a service by hand", result.returncode == 0 and "the same file" in result.stdout,
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
            check(command, result.returncode == 0, result.stdout)
        result = subprocess.run(["smctl", "stop"], cwd=folder, env=env, timeout=60, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
        check("smctl stop", result.returncode == 0, result.stdout)
        output, _ = service.communicate(timeout=60)
        check("the service ends well", service.returncode == 0, output)
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
    check("the middlebox compiles", result.returncode == 0, result.stdout)
    os.symlink(os.path.join(source, "tests/samples/flows.pcap"), os.path.join(folder, "in.pcap"))
    result = subprocess.run(["./count"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    same = result.returncode == 0 and \
        open(os.path.join(folder, "in.pcap"), "rb").read() == open(os.path.join(folder, "out.pcap"), "rb").read()
    check("the middlebox runs, and passes what it counts", same, result.stdout)


with tempfile.TemporaryDirectory(prefix="splitmerge-readme-") as base:
    for step in (by_hand, programs, operate, middlebox):
        place = os.path.join(base, step.__name__)
        os.mkdir(place)
        tree(place)
        step(place)
sys.exit(1 if failures else 0)
