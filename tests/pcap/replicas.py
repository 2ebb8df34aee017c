# SPDX-License-Identifier: BSD-2-Clause
"""What tests of unmodified programs share: a service of one, run over a capture to its end."""

import argparse
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402


def records(capture):
    """Each packet of a capture in microseconds: seconds, microseconds, captured and original length, bytes."""
    with open(capture, "rb") as file:
        data = file.read()
    at = 24
    while at + 16 <= len(data):
        head = struct.unpack_from("<IIII", data, at)
        yield *head, data[at + 16:at + 16 + head[2]]
        at += 16 + head[2]


def merged(files):
    """One capture with the packets of all of these, by time; it goes when the caller lets go of it."""
    capture = tempfile.NamedTemporaryFile(suffix=".pcap")
    capture.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1))
    for *header, data in sorted(packet for file in files for packet in records(file)):
        capture.write(struct.pack("<IIII", *header) + data)
    capture.flush()
    return capture


def arguments(description, programs):
    """The command line; the programs that are under test are there. --rounds: how many schedules, more with SM_FULL=1."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", required=True)
    parser.add_argument("--capture", required=True, nargs="+", help="Ethernet; of several one is made, by time")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--preload", help="what has to be loaded before the drop-in: a sanitizer's library")
    options = parser.parse_args()
    options.file = merged(options.capture) if len(options.capture) > 1 else open(options.capture[0], "rb")
    options.build, options.capture = map(os.path.abspath, (options.build, options.file.name))
    for program in programs:
        if not shutil.which(program):
            sys.exit(f"{program} is not here: scripts/setup installs it")
    options.seed = int(os.environ.get("SM_SEED", random.randrange(1 << 31)))
    print(f"SM_SEED={options.seed}")
    return options


def service(folder, options, program, args, events, more="", capture=None, start=1):
    """Run it to its end; its report. `more`: of the middlebox."""
    with open(os.path.join(folder, "service.yaml"), "w", encoding="utf-8") as file:
        file.write(f"service: watch\nmiddlebox: {{exec: {program}, args: {json.dumps(args)}{more}}}\n"
                   f"replicas: {{start: {start}, max: 4}}\nmode: tap\n"
                   f"ports: {{in: {{pcap: {capture or options.capture}}}}}\n")
    with open(os.path.join(folder, "events.txt"), "w", encoding="utf-8") as file:
        file.write(events)
    env = dict(os.environ, SPLITMERGE_RUN=os.path.join(folder, "run"), TMPDIR=folder)
    if options.preload:
        # The sanitizer's library comes first in replicas too; what they leak is theirs.
        env.update(LD_PRELOAD=options.preload, ASAN_OPTIONS="detect_leaks=0")
    smctl = os.path.join(options.build, "orchestrator", "smctl")
    command = [smctl, "run", "service.yaml", "--events", "events.txt", "--report", "report.json", "--collect", "."]
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=200)
    expect(done.returncode == 0, f"{program}: the service ends well: {done.returncode}", done.stdout, events)
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        return json.load(file)
