# SPDX-License-Identifier: BSD-2-Clause
"""What tests of unmodified programs share: a service of one, run over a capture to its end."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402


def arguments(description, programs):
    """The command line; the programs that are under test are there. --rounds: how many schedules, more with SM_FULL=1."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", required=True)
    parser.add_argument("--capture", required=True)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--preload", help="what has to be loaded before the drop-in: a sanitizer's library")
    options = parser.parse_args()
    options.build, options.capture = map(os.path.abspath, (options.build, options.capture))
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
