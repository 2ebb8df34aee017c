#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What `smctl limits` tells of a service is exact: every packet of a capture counts once, for its limits and its key,
however the service was scaled, reloaded and its replicas killed meanwhile."""

import collections
import json
import os
import random
import socket
import struct
import subprocess

import live
from live import expect, lab, records

SAMPLE = os.path.abspath(os.path.join(live.SAMPLES, "flows.pcap"))

# No bucket of `asks` is full again while the capture lasts, so none is closed; `net` marks.
LIMITS = ["{name: asks, match: udp dst port 53, per: source, rate: 1pps, burst: 8}",
          "{name: net, per: source/20/48, rate: 100kbit, burst: 4KiB, exceed: {mark: {dscp: CS1}}}",
          "{name: answers, match: udp src port 53, per: source, rate: 2kbit, burst: 4KiB}"]
SERVICE = """service: limits
middlebox: {exec: sm-ratelimiter, args: [--policy, policy.yaml]}
replicas: {start: 2, min: 1, max: 4}
ports:
  in: {pcap: waits.pcap, pace: recorded}
  out: {pcap: out.pcap}
"""


def asker(frame):
    """The source of a packet to UDP port 53, else None."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x00\x35":
        return socket.inet_ntop(socket.AF_INET, frame[26:30])
    if kind == b"\x86\xdd" and frame[20] == 17 and frame[56:58] == b"\x00\x35":
        return socket.inet_ntop(socket.AF_INET6, frame[22:38])
    return None


def policy(service, lines):
    service.write("policy.yaml", "limits:\n" + "".join(f"  - {line}\n" for line in lines))


def waits(service):
    """The sample, and a packet that comes so late that all the others can be asked about. Returns the packets of each
    that asks."""
    head, found = records(SAMPLE)
    seconds, = struct.unpack_from("<I", found[-1])
    with open(service.path("waits.pcap"), "wb") as file:
        file.write(head + b"".join(found) + struct.pack("<I", seconds + 600) + found[-1][4:])
    asked = collections.Counter(filter(None, (asker(record[16:]) for record in found)))
    return len(found), asked


def alone(service):
    """What the limits come to where nothing is split: the report of the program by itself, without the late packet."""
    done = subprocess.run(service.program("sm-ratelimiter", "--policy", "policy.yaml", "--in", SAMPLE, "--out",
                                          "alone.pcap", "--report", "alone.json"), cwd=service.folder, check=False)
    expect(done.returncode == 0, "the limiter alone")
    with open(service.path("alone.json"), encoding="utf-8") as file:
        report = json.load(file)
    values = {item["name"]: item["value"] for item in report["shared"]}
    reached = {}
    for number, reason in enumerate(report["reasons"]):
        if reason.startswith("limit:"):
            reached[reason[6:]] = {**{key: (values[f"limits.{key}"][number:] + [0])[0]
                                      for key in ("packets", "bytes", "exceeded")},
                                   "dropped": report["packets"]["dropped"].get(reason, 0)}
    return reached


def trouble(service):
    """Scaled, killed and reloaded while packets come. An operation may fail when a replica dies that it needs."""
    for _ in range(5):
        what = random.choice(("scale", "kill", "reload", "scale"))
        if what == "scale":
            done = service.smctl("--wait", "scale", random.randint(1, 4), timeout=60)
            expect(done.returncode in (0, 1, 4), f"scaled: {(done.stdout or done.stderr).strip()}", done)
        elif what == "kill":
            living = [replica["pid"] for replica in (service.status() or {}).get("replicas", [])]
            if living:
                subprocess.run(["kill", "-9", str(random.choice(living))], check=False)
                print("     a replica was killed")
        else:
            random.shuffle(LIMITS)
            policy(service, LIMITS)
            done = service.smctl("--wait", "reload", timeout=60)
            expect(done.returncode in (0, 1, 4), f"reloaded: {(done.stdout or done.stderr).strip()}", done)


def numbers(service, *options):
    done = service.smctl("limits", "--json", *options)
    expect(done.returncode == 0, f"smctl limits {' '.join(map(str, options))}", done.stderr)
    return json.loads(done.stdout) if done.returncode == 0 else {"limits": [], "keys": []}


def exact(service, reached, asked):
    told = numbers(service, "--top", 1000)
    for limit in told["limits"]:
        got = {key: limit[key] for key in ("packets", "bytes", "exceeded", "dropped")}
        expect(got == reached[limit["name"]], f"{limit['name']}: {got}", reached[limit["name"]])
        expect(limit["packets_per_second"] == 0, "at rest")
    expect({limit["name"] for limit in told["limits"]} == set(reached), "every limit")
    by_key = {item["key"].split(" tag ")[0]: item["state"] for item in told["keys"] if item["state"]["limit"] == "asks"}
    sums = {key: state["passed"] + state["exceeded"] for key, state in by_key.items()}
    expect(sums == asked, f"each key's packets: {len(sums)} keys", sums, asked)
    expect(sum(state["exceeded"] for state in by_key.values()) == reached["asks"]["exceeded"],
           "and what exceeded the limit is in its keys")


def sorted_and_cut(service):
    told = numbers(service, "--top", 3)["keys"]
    most = [item["state"]["exceeded"] for item in told]
    expect(len(most) == 3 and most == sorted(most, reverse=True) and most[0] > 0, f"by drops: {most}")
    told = numbers(service, "--by", "rate", "--top", 4)["keys"]
    rates = [item["state"]["rate"] for item in told]
    expect(len(rates) == 4 and rates == sorted(rates, reverse=True) and rates[0] > 0, f"by rate: {rates}")
    expect(numbers(service, "--top", 0)["keys"] == [], "no keys where none are asked for")
    done = service.smctl("limits", "--top", 2)
    lines = done.stdout.splitlines()
    expect(done.returncode == 0 and len(lines) == 8 and lines[0].startswith("LIMIT") and lines[5].startswith("LIMIT"),
           "as a table", done.stdout)


def wrong(service):
    for words, says in ((("--by", "size"), "--by: expected drops or rate, got 'size'"),
                        (("--top", "many"), "--top: expected 0 to 1000 keys, got 'many'"),
                        (("--top", "1001"), "--top: expected 0 to 1000 keys, got '1001'"),
                        (("--top",), "expected: smctl limits [--by drops|rate] [--top N]"),
                        (("asks",), "expected: smctl limits [--by drops|rate] [--top N]")):
        done = service.smctl("limits", *words)
        expect(done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr,
               f"limits {' '.join(words)}: {done.stderr.strip()}", done.returncode)


def no_limits(build):
    service = lab.Service(build)
    waits(service)
    service.write("service.yaml", SERVICE.replace("sm-ratelimiter, args: [--policy, policy.yaml]",
                                                  os.path.join(build, "middleboxes", "counter", "counter")))
    service.start("service.yaml")
    expect(service.wait_running(60), "another middlebox", service.log())
    done = service.smctl("limits")
    expect(done.returncode == 1 and done.stderr == "smctl: the service's middlebox has no limits\n",
           "which has no limits", done)
    service.stop()


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    seed = int(os.environ.get("SM_SEED", "1"))
    random.seed(seed)
    print(f"SM_SEED={seed}")
    service = lab.Service(given.build)
    count, asked = waits(service)
    policy(service, LIMITS)
    reached = alone(service)
    service.write("service.yaml", SERVICE)
    service.start("service.yaml")
    expect(service.wait_running(60), "the service runs", service.log())
    trouble(service)
    # The late packet is the one that does not come: nothing is in flight.
    expect(lab.wait_until(lambda: (lambda at: at and at["packets"]["in"] >= count and at["in_flight"] == 0)(
        service.status()), 60, 0.1), f"{count} packets", service.status())
    exact(service, reached, asked)
    sorted_and_cut(service)
    wrong(service)
    service.stop()
    live.expect_no_sanitizer(service.log())
    no_limits(given.build)
    live.expect_alone()
    live.finish()


main()
