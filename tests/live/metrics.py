#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""/metrics and /healthz of a service under traffic: OpenMetrics by the standard's rules and by promtool, counters that
only grow and agree with the report, refusals, many scrapes at a time, nothing of it when off."""

import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request

import live
import openmetrics
from live import expect, lab

ADDRESS = "127.0.0.1:9464"
SERVICE = """service: metrics
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{generator: {{flows: 1000, rate: 20kpps}}}}
  out: {{discard: true}}
limits: {{flows: 64k, memory: 64MiB}}
{more}
"""
POLICY = "limits: [{name: all, per: flow, rate: 1kbit, burst: 200B, exceed: drop}]\n"


def get(path, method="GET", accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1"):
    """Status, type and text."""
    request = urllib.request.Request(f"http://{ADDRESS}{path}", method=method, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def scrape():
    status, kind, text = get("/metrics")
    if not expect(status == 200 and kind.startswith("application/openmetrics-text; version=1.0.0"), "/metrics answers", status, kind):
        return {}, text
    try:
        return openmetrics.parse(text), text
    except openmetrics.Broken as broken:
        expect(False, f"it is OpenMetrics: {broken}")
        return {}, text


def older(samples):
    """For whoever does not ask for OpenMetrics: by what we know of its rules, and by promtool."""
    status, kind, text = get("/metrics", accept="*/*")
    expect(status == 200 and kind.startswith("text/plain; version=0.0.4"), "/metrics in the older format", status, kind)
    try:
        names = openmetrics.parse_older(text)
        expect(names == {name for name, _ in samples}, "it has the same samples", names ^ {name for name, _ in samples})
    except openmetrics.Broken as broken:
        expect(False, f"it is in that format: {broken}")
    tool = shutil.which("promtool")
    if expect(tool is not None, "promtool is here (Debian: prometheus)"):
        done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False)
        expect(done.returncode == 0 and not (done.stdout + done.stderr).strip(), "promtool has nothing to say", done.stdout, done.stderr)


def under_traffic(service):
    expect(get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n"), "/healthz: ok")
    expect(get("/")[0] == 404 and get("/metrics", "DELETE")[0] == 405, "what there is not, and what may not be done")
    before, _ = scrape()
    done = service.smctl("scale", 4, timeout=90)
    expect(done.returncode == 0, done.stdout.strip(), done)
    victim = service.status()["replicas"][0]["pid"]
    os.kill(victim, 9)
    dead = ("splitmerge_deaths_total", (("part", "replica"),))
    expect(lab.wait_until(lambda: scrape()[0].get(dead) == 1, 30), "a replica's death is counted")
    dropped = ("splitmerge_packets_dropped_total", (("reason", "limit:all"),))
    expect(lab.wait_until(lambda: scrape()[0].get(dropped, 0) > 0, 30), "drops have their reason")
    after, _ = scrape()
    counters = [key for key in before if key[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    shrunk = [key for key in counters if key in after and after[key] < before[key]]
    expect(len(counters) > 25 and not shrunk, f"{len(counters)} counters only grow", shrunk)
    moved = after["splitmerge_move_pause_seconds_count", ()]
    expect(moved > 0 and after["splitmerge_moves_completed_total", (("how", "relabel"),)] >= moved, f"{moved:.0f} pauses")
    older(after)
    scrapes = [threading.Thread(target=get, args=("/metrics",)) for _ in range(12)]
    for each in scrapes:
        each.start()
    for each in scrapes:
        each.join(60)
    last, _ = scrape()
    return last


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    openmetrics.selftest()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=30)
    service = lab.Service(given.build)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", SERVICE.format(more=f"metrics: {ADDRESS}"))
    service.start("service.yaml", "--report", "report.json")
    if not expect(service.wait_running(60), "the service runs", service.log()):
        live.finish()
    last = under_traffic(service)
    service.write("second.yaml", SERVICE.format(more=f"metrics: {ADDRESS}").replace("service: metrics", "service: second"))
    second = lab.Service(given.build, folder=service.folder)
    refused = subprocess.run(second.program("smctl", "run", "second.yaml"), cwd=service.folder, env=second.environment,
                             timeout=60, capture_output=True, text=True, check=False)
    expect(refused.returncode == 1 and f"cannot listen on {ADDRESS}" in refused.stderr, "an address that is taken: refused", refused)
    expect(service.stop() == 0, "SIGTERM ends it", service.log())
    live.expect_no_sanitizer(service.log())
    with open(service.path("report.json"), encoding="utf-8") as file:
        report = json.load(file)
    expect(0 < last["splitmerge_packets_received_total", ()] <= report["packets"]["in"], "no more packets than the report has")
    live.expect_report(report, moves=True)
    expect("192.168." not in str(last) and not any("10.0." in str(labels) for _, labels in last), "no flow in a label")

    service.write("service.yaml", SERVICE.format(more=""))
    service.start("service.yaml")
    expect(service.wait_running(60), "without the key it runs", service.log())
    try:
        get("/healthz")
        expect(False, "and nobody listens")
    except urllib.error.URLError:
        expect(True, "and nobody listens")
    expect(service.stop() == 0, "SIGTERM ends it", service.log())
    live.expect_alone()
    live.finish()


main()
