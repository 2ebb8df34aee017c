#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""smctl rebalance goes by what comes to the shards: load that is all with one of two replicas is halved by moving few
shards, once that is so nothing moves, and a flow that is most of the load is named."""

import json

import live
from live import expect, lab

SERVICE = """service: rebalance
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{generator: {{flows: {flows}, rate: 5kpps}}}}
  out: {{discard: true}}
limits: {{flows: 64k, memory: 64MiB}}
"""
FLOWS = 64


def rebalance(service):
    done = service.smctl("rebalance", "--json", timeout=90)
    if not expect(done.returncode == 0, "rebalance", done, service.log()):
        live.finish()
    return json.loads(done.stdout)


def run(given, flows):
    service = lab.Service(given.build)
    service.write("policy.yaml", "limits: [{name: all, per: flow, rate: 100Mbit, burst: 1MiB}]\n")
    service.write("service.yaml", SERVICE.format(flows=flows))
    service.start("service.yaml", "--report", "report.json")
    expect(service.wait_running(60), "the service runs", service.log())
    received = lab.wait_until(lambda: service.status()["packets"]["in"] > 20 * flows, 60)
    expect(received, f"packets of {flows} flows")
    return service


def end(service):
    expect(service.stop() == 0, "SIGTERM ends it", service.log())
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        live.expect_report(json.load(file), moves=True)


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    service = run(given, FLOWS)
    expect(service.smctl("drain", "r2", timeout=90).returncode == 0, "all shards to the first")
    done = rebalance(service)
    expect(1.9 < done["imbalance_before"] < 2.1 and done["imbalance_after"] < 1.2,
           f"the busiest had {done['imbalance_before']:.2f} times its share, now {done['imbalance_after']:.2f}", done)
    expect(FLOWS / 2 - 8 <= done["completed"] <= FLOWS / 2 + 4, f"{done['completed']} shards moved", done)
    expect(done["elephants"] == [], "no elephant", done)
    again = rebalance(service)
    expect(again["completed"] <= 8, f"then {again['completed']} move", again)
    end(service)

    service = run(given, 1)
    expect(service.smctl("drain", "r2", timeout=90).returncode == 0, "all shards to the first")
    done = rebalance(service)
    expect(len(done["elephants"]) == 1 and done["elephants"][0]["share"] == 1, "the one flow is an elephant", done)
    said = service.smctl("rebalance", timeout=90).stdout
    expect("alone has 100 % of all load" in said, said.strip())
    end(service)
    live.expect_alone()
    live.finish()


main()
