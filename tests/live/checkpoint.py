#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoints of a service under traffic while it is in turmoil: replicas, the orchestrator and the switch are killed by
SIGKILL at any instant of a checkpoint, shards move, the disk is full, the service is stopped. What is there under the
checkpoint's name is always whole, read by a reader of the tests' own; whoever asked is told; and the next checkpoint can
be taken.

SM_SEED fixes the random numbers (not the kernel's timing); SM_FULL=1 takes more rounds.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import live
from live import expect, lab

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "checkpoint"))

import reader  # noqa: E402

FULL = os.environ.get("SM_FULL", "") not in ("", "0")
SEED = int(os.environ.get("SM_SEED", "0"), 0) or random.SystemRandom().randrange(1, 1 << 31)
SERVICE = """service: turmoil
middlebox: {{exec: {counter}}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in:  {{generator: {{flows: {flows}, size: 64, rate: {rate}}}}}
  out: {{discard: true}}
limits: {{flows: 1M, memory: 512MiB}}
"""


def service_of(given, flows):
    service = lab.Service(given.build, folder=None)
    counter = os.path.join(given.build, "middleboxes/counter/counter")
    rate = "5kpps" if given.slow else "100kpps"
    service.write("service.yaml", SERVICE.format(counter=counter, flows=flows, rate=rate))
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        return None
    def filled():
        return (service.status() or {}).get("flows", {}).get("live", 0) >= flows
    expect(lab.wait_until(filled, 60), f"{flows} flows live", service.status())
    return service


def kill(name, rng):
    found = [pid for pid, command in lab.others() if os.path.basename(command.split(" ")[0]) == name]
    if found:
        os.kill(rng.choice(found), signal.SIGKILL)


def nice_values(name):
    """Of all threads of a program."""
    found = []
    for pid, command in lab.others():
        if os.path.basename(command.split(" ")[0]) == name:
            found += [os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir(f"/proc/{pid}/task")]
    return found


def flows_in(service, name):
    """How many flows a whole checkpoint has, none of them twice; None: there is none. Raises what is wrong with it."""
    if not os.path.exists(service.path(name)):
        return None
    flows = reader.read(service.path(name)).flows
    keys = {(flow.cls, flow.key) for flow in flows}
    if len(keys) != len(flows):
        raise reader.Damaged(f"{len(flows) - len(keys)} flows are there twice")
    return len(flows)


def asked(service, name):
    return subprocess.Popen(service.program("smctl", "checkpoint", name, "--json"), env=service.environment,
                            cwd=service.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_turmoil(given, rng, rounds):
    print("-- deaths and moves in the midst of checkpoints")
    flows = 2000 if given.slow else 40000
    service = service_of(given, flows)
    if not service:
        return
    what = {
        "a replica dies": lambda: kill("counter", rng),
        "shards move": lambda: service.smctl("scale", rng.randint(1, 4)),
        "shards move by copying": lambda: service.smctl("scale", rng.randint(1, 4), "--copy"),
        "the orchestrator dies": lambda: kill("sm-orchestrator", rng),
        "the switch dies": lambda: kill("sm-switch", rng),
    }
    whole = 0
    for number in range(rounds):
        name, happens = list(what.items())[number % len(what)]
        before = flows_in(service, "saved")
        saving = asked(service, "saved")
        time.sleep(rng.random() * 0.04)
        happens()
        try:
            output, error = saving.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            expect(False, f"{name}: whoever asked is told", service.log()[-2000:])
            break
        saved = flows_in(service, "saved")
        if saving.returncode == 0:
            told = json.loads(output)["flows"]
            good = saved == told and told == flows
            whole += 1
        else:
            lines = error.strip().split("\n")
            good = saved in (before, flows) and len(lines) == 1
        if not expect(good, f"{name}: status {saving.returncode}, {saved} flows", output, error):
            break

        def again():
            return service.smctl("checkpoint", "after", timeout=60).returncode == 0
        if not expect(lab.wait_until(again, 30), f"{name}: the next checkpoint can be taken", service.log()[-2000:]):
            break
        expect(flows_in(service, "after") == flows and not os.path.exists(service.path("after.partial")),
               f"{name}: and is whole")
    expect(whole > 0, f"{whole} of {rounds} became whole")
    found = service.smctl("check")
    expect(found.returncode == 0, f"smctl check: {found.stdout.strip()}", found.stdout, found.stderr)
    code = service.stop(30)
    expect(code == 0, f"the service ends with status {code}", service.log()[-2000:])
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        live.expect_report(json.load(file), moves=False)


def two_at_once_and_a_stop(given, rng):
    print("-- two at once; no room on the disk; the service is stopped meanwhile")
    flows = 2000 if given.slow else 100000
    service = service_of(given, flows)
    if not service:
        return
    both = [asked(service, name) for name in ("one", "two")]
    told = [(saving.communicate(timeout=60), saving.returncode) for saving in both]
    expect(sorted(status for _, status in told) in ([0, 0], [0, 4]), f"of two at once one waits its turn: {told}")
    expect(all((flows_in(service, name) == flows) == (status == 0) for name, (_, status) in zip(("one", "two"), told)),
           "whoever was told so has a checkpoint")

    found = nice_values("sm-switch")
    expect(len(found) > 2 and max(found) >= 10 and found.count(min(found)) >= 2,
           "whoever writes it runs at low priority, the switch does not", found)

    small = service.path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    full = service.smctl("checkpoint", "small/saved")
    lines = full.stderr.strip().split("\n")
    expect(full.returncode == 1 and len(lines) == 1 and "No space left on device" in lines[0], "a full disk is said",
           full.stderr)
    expect(os.listdir(small) == [], "and nothing of it is left", os.listdir(small))
    expect(service.smctl("checkpoint", "one").returncode == 0 and flows_in(service, "one") == flows, "the next one is whole")
    refused = service.smctl("restore", "one")
    expect(refused.returncode == 1 and f"has {flows} flows" in refused.stderr and "run --restore" in refused.stderr,
           "restore says why not, and what to do", refused.stderr)
    subprocess.run(["umount", small], check=True)

    saving = asked(service, "last")
    time.sleep(rng.random() * 0.05)
    code = service.stop(30)
    saving.communicate(timeout=60)
    expect(code == 0, f"the service ends with status {code}", service.log()[-2000:])
    expect(flows_in(service, "last") in (None, flows) and (saving.returncode != 0 or flows_in(service, "last") == flows),
           f"stopped meanwhile: status {saving.returncode}, {flows_in(service, 'last')} flows")
    expect(not os.path.exists(service.path("last.partial")), "no part of a file is left")
    live.expect_no_sanitizer(service.log())


def main():
    given = live.arguments(__doc__)
    print(f"seed {SEED}: SM_SEED={SEED} to repeat")
    live.enter_or_skip()
    rng = random.Random(SEED)
    in_turmoil(given, rng, 30 if FULL else 5)
    two_at_once_and_a_stop(given, rng)
    live.expect_alone()
    live.finish()


main()
