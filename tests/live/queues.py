#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The limiter between two interfaces of three queues each, whose packets four threads of the switch's move: all that
xdp.py does, by native and by generic AF_XDP. Then the switch killed under traffic, what is refused, and an interface that goes."""

import json
import os
import signal
import time

import live
import xdp
from live import expect, lab

THREADED = {f"{driver}, threads: 2": f"{xdp.NAMES[driver]}, 2 threads" for driver in ("xdp-native", "xdp-generic")}
xdp.NAMES.update(THREADED)


def taken(path):
    """What the links of the middle took to send; of that the other ends may drop some."""
    counters = [xdp.link_counters(path.middle, name)["tx"] for name in ("left", "right")]
    return sum(count["packets"] + count["dropped"] for count in counters)


def killed(given, path):
    """The switch dies with packets in all rings. What its successor counts as out has left, the rest as switch_died."""
    before, trial = taken(path), xdp.Trial(given.build, path, "xdp-native, threads: 2")
    if not expect(trial.status, "the service runs", trial.service.log()):
        return
    outlet = xdp.sender(path.client)
    for deaths in (1, 2):
        xdp.send(outlet, xdp.frames(3000, (50, 1000)), 0)
        pid = next(pid for pid, command in lab.others() if "sm-switch" in command.split(" ")[0])
        os.kill(pid, signal.SIGKILL)

        def goes_on(wanted=deaths):
            status = trial.service.status()
            return status and status["deaths"]["switch"] == wanted and status["ports"][0]["rx_packets"] > 0

        deadline = time.monotonic() + 60
        while not goes_on() and time.monotonic() < deadline:
            xdp.send(outlet, xdp.frames(32), 0)
            time.sleep(0.1)
        expect(goes_on(), f"killed: a switch goes on after {deaths}", trial.service.log())
    outlet.close()
    expect(trial.service.stop() == 0, "it ends well", trial.service.log())
    live.expect_no_sanitizer(trial.service.log())
    with open(trial.service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    packets, came = report["packets"], taken(path) - before
    expect(packets["in"] + packets["generated"] == packets["out"] + sum(packets["dropped"].values()),
           f"killed: {packets['in']} in = {packets['out']} out + dropped", packets)
    expect(packets["out"] <= came, f"killed: {packets['out']} out, {came} were taken by the links", packets)


def refused(given, path):
    trial = xdp.Trial(given.build, path, "xdp, threads: 4")
    expect(trial.status is None and trial.service.process.wait() == 1 and
           "left: it has 3 receive and 3 send queues, expected at least 4 of each (threads: 4)" in trial.service.log(),
           "more threads than queues: refused", trial.service.log())


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = xdp.path_of_queues(3)
    for driver in THREADED:
        xdp.trial_of(given, driver, path)
    killed(given, path)
    refused(given, path)
    xdp.gone(given, path, "xdp, threads: 3")
    live.expect_alone()
    live.finish()


main()
