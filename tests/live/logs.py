#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a service says while it is split and merged and everybody in it is killed once: every line is an object of JSON
with the same keys, which tells what has happened; as text, every line is one event; names may have any characters."""

import json
import os
import re

import live
from live import expect, lab

NAME = 'o"ut \\ \u00e4\t.pcap'
SERVICE = """service: logs
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {{generator: {{flows: 500, rate: 5kpps}}}}
  out: {{pcap: {output}}}
limits: {{flows: 64k, memory: 64MiB}}
"""
EVENTS = """packet=500 scale 4
packet=1000 kill any
packet=1500 kill switch
packet=2000 scale 1
packet=2500 kill orchestrator
packet=3000 scale 9
"""
KEYS = {"time": str, "level": str, "component": str, "event": str, "message": str}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
PARTS = {"smctl", "sm-switch", "sm-orchestrator", "sm-ratelimiter"}


def log_of(given, style):
    """What a whole run says, line by line."""
    service = lab.Service(given.build)
    service.write("policy.yaml", "limits: [{name: all, per: flow, rate: 1Mbit, burst: 4KiB}]\n")
    service.write("service.yaml", SERVICE.format(output=json.dumps(NAME)))
    service.write("events", EVENTS)
    service.start("service.yaml", "--events", "events", "--log-format", style, "--log-level", "info")
    expect(lab.wait_until(lambda: "scale 9" in service.log(), 90), f"{style}: all events have come", service.log())
    service.stop()
    with open(service.path("log"), "rb") as file:
        text = file.read()
    live.expect_no_sanitizer(text.decode(errors="replace"))
    expect(os.path.exists(service.path(NAME + ".partial")), f"{style}: the output has its name")
    expect(text.endswith(b"\n"), f"{style}: the last line is whole")
    return text.decode("utf-8").splitlines()


def as_json(given):
    lines, broken = [], []
    for text in log_of(given, "json"):
        try:
            line = json.loads(text)
            fine = all(isinstance(line.get(key), kind) for key, kind in KEYS.items())
            lines.append(line)
        except ValueError:
            fine = False
        if not fine:
            broken.append(text)
    expect(lines and not broken, f"all of {len(lines)} lines are objects with {', '.join(KEYS)}", *broken)
    expect(all(re.fullmatch(TIME, line["time"]) for line in lines), "times are as RFC 3339 has them")
    expect({line["level"] for line in lines} <= {"error", "warning", "notice", "info"}, "levels")
    expect({line["component"] for line in lines} <= PARTS, "components")
    seen = {}
    for line in lines:
        seen.setdefault(line["event"], []).append(line)
    for event, fields in (("started", {"version", "pid"}), ("replica_attached", {"replica", "pid"}),
                          ("replica_died", {"replica", "reason", "shards"}), ("part_killed", {"part", "signal"}),
                          ("moved", {"shards", "flows"}), ("operation_ended", {"operation", "result", "shards"}),
                          ("event_not_done", {"line", "reason"}), ("resumed", {"replicas"}), ("stopped", {"file"})):
        expect(all(fields <= set(line) for line in seen.get(event, [{}])), f"{event} has {', '.join(sorted(fields))}",
               seen.get(event))
    ours = [line for line in lines if line["component"] in ("sm-switch", "sm-orchestrator")]
    expect(all(line.get("service") == "logs" for line in ours), "each says of which service")
    expect(seen.get("stopped", [{}])[0].get("file") == NAME, "a name arrives as it is", seen.get("stopped"))


def as_text(given):
    form = rf"{TIME} (error|warning|notice|info) ({'|'.join(PARTS)}): .* event=\w+( \w+=(\"([^\"\\]|\\.)*\"|[-+.\de]+))*"
    broken = [line for line in log_of(given, "text") if not re.fullmatch(form, line)]
    expect(not broken, "text: every line has time, level, component, event and fields", *broken)


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    as_json(given)
    as_text(given)
    live.expect_alone()
    live.finish()


main()
