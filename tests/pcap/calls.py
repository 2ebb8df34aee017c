#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""libpcap's calls on an interface, and those of the drop-in on a service of that interface: the same results, line by
line. Then what only a service has: where it differs, how it ends, what it refuses.

usage: calls.py --build BUILD --calls PROGRAM [--preload LIBRARY]
"""

import argparse
import contextlib
import difflib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "live"))

import live  # noqa: E402
from live import expect, lab  # noqa: E402

DEADLINE = 120


def feed(path, ask, stop):
    """Send as many packets as are asked for, each longer than the one before."""
    sender = path.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sent = 0
    with open(ask, encoding="ascii") as wanted:
        for line in wanted:
            if stop.is_set():
                return
            for _ in range(int(line)):
                sent += 1
                sender.sendto(bytes(20 * sent), (path.SERVER, 7777))


def run(path, folder, name, command, env):
    """The lines that the program wrote, when it is through; it has been ended then."""
    lines, ask = os.path.join(folder, name + ".lines"), os.path.join(folder, name + ".ask")
    os.mkfifo(ask)
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(path, ask, stop), daemon=True)
    feeder.start()
    process = path.middle.start(*command(lines, ask), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def written():
        try:
            with open(lines, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    lab.wait_until(lambda: written().endswith("end\n") or process.poll() is not None, DEADLINE)
    stop.set()
    # The program does not end by itself, nor does its service then: all that is in our namespaces goes.
    for pid, _ in lab.others():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    said = process.communicate(timeout=30)[0]
    return expect(written().endswith("end\n"), f"{name}: the program came to its end", written()[-500:], said) and \
        written().splitlines()


def compare(path, folder, options, env):
    interface = "left"
    path.client.ip("neigh", "add", path.SERVER, "lladdr", "02:00:00:00:00:02", "dev", "eth0")

    def service(lines, ask):
        file = os.path.join(folder, "service.yaml")
        with open(file, "w", encoding="ascii") as text:
            text.write(f'service: calls\nmiddlebox: {{exec: {options.calls}, args: ["sm:{{service}}", {lines}, {ask}]}}\n'
                       f"mode: tap\nreplicas: {{max: 1}}\nports: {{in: {{interface: {interface}}}}}\n"
                       "limits: {unresponsive: 60s}\n")
        return [os.path.join(options.build, "orchestrator", "smctl"), "run", file]

    real = run(path, folder, "libpcap", lambda lines, ask: [options.calls, interface, lines, ask], dict(os.environ))
    ours = run(path, folder, "drop-in", service, env)
    if real and ours:
        expect(real == ours, f"the same {len(real)} lines",
               "\n".join(difflib.unified_diff(real, ours, "libpcap", "drop-in", lineterm="")))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--calls", required=True)
    parser.add_argument("--preload")
    options = parser.parse_args()
    options.build, options.calls = map(os.path.abspath, (options.build, options.calls))
    live.enter_or_skip()
    path = lab.Path()
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"))
        if options.preload:
            env["LD_PRELOAD"] = options.preload
        compare(path, folder, options, env)
    live.expect_alone()
    live.finish()


main()
