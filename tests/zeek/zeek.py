#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Zeek as an elastic service, by middleboxes/zeek/sm-zeek: what 1 to 4 replicas log under random drains is what one logs
that reads the capture itself. Run with a stand-in that makes Zeek's calls; with Zeek itself too where it is installed.

usage: zeek.py --build BUILD --capture FILE --standin PROGRAM
"""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402

SM_ZEEK = os.path.join(HERE, "..", "..", "middleboxes", "zeek", "sm-zeek")

HEADER = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
LAYOUT = """# of a cluster whose other nodes run elsewhere
redef Cluster::nodes = {
    ["manager"] = [$node_type=Cluster::MANAGER, $ip=127.0.0.1, $p=27760/tcp],
""" + "".join(f'    ["worker-{n}"] = [$node_type=Cluster::WORKER, $ip=127.0.0.1, $manager="manager"],\n'
              for n in range(1, 5)) + "};\n"


def sm_zeek(options, *arguments, folder=None):
    env = dict(os.environ, PATH=os.path.join(options.build, "orchestrator") + ":" + os.environ["PATH"])
    if folder:
        env["SPLITMERGE_RUN"] = os.path.join(folder, "run")
    return subprocess.run([sys.executable, "-B", SM_ZEEK, *arguments], cwd=folder, env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=200)


def read(file):
    """The records of a log, each a dictionary, and its lines that are none."""
    fields, records, others = [], [], []
    with open(file, encoding="utf-8") as lines:
        for line in lines.read().splitlines():
            if line.startswith("{"):
                records.append({name: str(value) for name, value in json.loads(line, parse_float=str).items()})
            elif line.startswith("#"):
                others.append(line)
                fields = line.split("\t")[1:] if line.startswith("#fields") else fields
            else:
                records.append(dict(zip(fields, line.split("\t"))))
    return records, others


def connections(folder):
    """What the capture says of them: all but who saw them."""
    names = ("ts", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "orig_pkts", "resp_pkts",
             "orig_ip_bytes", "resp_ip_bytes")
    records, _ = read(os.path.join(folder, "conn.log"))
    return collections.Counter(tuple(record.get(name, "-") for name in names) for record in records)


def service(options, folder, rng, zeek, *more, as_json=False):
    """Run it: where its logs are, and its report."""
    logs = os.path.join(folder, "logs")
    lines, now = [], rng.choice((2, 3, 4))
    lines.append(f"packet={rng.randrange(1, options.packets // 4)} scale {now}")
    for at in sorted(rng.sample(range(options.packets // 4, options.packets), 2)):
        now = rng.choice([n for n in (1, 2, 3, 4) if n != now])
        lines.append(f"packet={at} scale {now}")
    with open(os.path.join(folder, "events.txt"), "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    done = sm_zeek(options, "run", "--logs", "logs", "--replicas", "1-4", "--zeek", zeek, "--events", "events.txt",
                   "--report", "report.json", "-r", options.capture, *more, "--",
                   *(["LogAscii::use_json=T"] if as_json else []), folder=folder)
    expect(done.returncode == 0, f"{os.path.basename(zeek)}: the service ends well: {done.returncode}", done.stdout, lines)
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        return logs, json.load(file)


def same(options, folder, rng, zeek, as_json):
    """The same connections; and merged, by time, with a header where there is one."""
    alone = os.path.join(folder, "alone")
    os.mkdir(alone)
    subprocess.run([zeek, "-r", options.capture, *(["LogAscii::use_json=T"] if as_json else [])], cwd=alone, check=True)
    logs, report = service(options, folder, rng, zeek, as_json=as_json)
    expected, seen = connections(alone), connections(logs)
    what = "JSON" if as_json else "TSV"
    expect(expected and expected == seen, f"{what}: {sum(expected.values())} connections alone, the same ones",
           list((expected - seen).items())[:3], list((seen - expected).items())[:3])
    busy = [replica["name"] for replica in report["replicas"] if replica["packets"] > 0]
    expect(len(busy) > 1 or options.packets < 10000,  # few flows may all have begun before others came
           f"{what}: {len(busy)} replicas had packets", report["replicas"])
    records, others = read(os.path.join(logs, "conn.log"))
    times = [(float(record["ts"]), record["uid"]) for record in records]
    expect(times == sorted(times) and len(set(uid for _, uid in times)) == len(times), f"{what}: by time and uid")
    _, once = read(os.path.join(alone, "conn.log"))
    expect([line.split("\t")[0] for line in others] == [line.split("\t")[0] for line in once],
           f"{what}: {len(others)} lines of header and end", others)
    return logs, busy


def identities(options, folder, rng, zeek):
    """Standalone each replica is a peer of its own; in a cluster, one of its workers."""
    records, _ = read(os.path.join(same(options, folder, rng, zeek, False)[0], "stats.log"))
    expect(len(records) > 1 and sorted(record["peer"] for record in records) ==
           [f"r{n}" for n in range(1, len(records) + 1)], f"{len(records)} peers, by the replicas' names", records)
    expect(sum(int(record["pkts_link"]) for record in records) == options.packets, "who were given each packet once",
           records)
    scripts = read(os.path.join(folder, "logs", "loaded_scripts.log"))[0]
    expect(len(scripts) == 1, "what has no time stands once", scripts)


def cluster(options, folder, rng, zeek):
    layout = os.path.join(folder, "layout.zeek")
    with open(layout, "w", encoding="ascii") as file:
        file.write(LAYOUT)
    logs, report = service(options, folder, rng, zeek, "--cluster", layout)
    records, _ = read(os.path.join(logs, "stats.log"))
    names = {record["peer"] for record in records}
    workers = {f"worker-{n}" for n in range(1, 5)}
    expect(names <= workers and len(records) == len(report["replicas"]) and len(names) > 1,
           f"cluster: {len(records)} replicas were {sorted(names)}", report["replicas"])
    done = sm_zeek(options, "run", "--replicas", "5", "--zeek", zeek, "--cluster", layout, "-r", options.capture,
                   folder=folder)
    expect(done.returncode == 2 and "expected 5 workers, one for each replica, got 4" in done.stdout,
           f"cluster: {done.stdout.strip()}")


def put(folder, replica, text, name="conn.log"):
    os.makedirs(os.path.join(folder, replica), exist_ok=True)
    with open(os.path.join(folder, replica, name), "w", encoding="utf-8") as file:
        file.write(text)


def log(opened, closed, *records, fields="ts\tuid\tnote"):
    return (HEADER + f"#open\t{opened}\n#fields\t{fields}\n#types\ttime\tstring\tstring\n" +
            "".join(record + "\n" for record in records) + (f"#close\t{closed}\n" if closed else ""))


def merging(options, folder):
    """Each way in which logs may be less than whole."""
    def merged(status, words, name="conn.log"):
        done = sm_zeek(options, "merge", folder)
        expect(done.returncode == status and words in done.stdout, f"merge: {done.stdout.strip() or 'done'}", done)
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None

    put(folder, "r1", log("2026-01-01-00-00-02", "2026-01-01-00-00-08", "3.5\tC3\ta", "10.25\tC1\tb"))
    put(folder, "r2", log("2026-01-01-00-00-01", "2026-01-01-00-00-09", "9.5\tC2\tc", "3.5\tC0\td"))
    expect(merged(0, "") == log("2026-01-01-00-00-01", "2026-01-01-00-00-09", "3.5\tC0\td", "3.5\tC3\ta", "9.5\tC2\tc",
                                "10.25\tC1\tb"), "two logs are one, by time, opened with the first and closed with the last")
    put(folder, "r10", log("2026-01-01-00-00-03", "", "4\tC4\te") + "5\tC5")
    expect(merged(1, "r10/conn.log: its last line is not whole: left out") ==
           log("2026-01-01-00-00-01", "", "3.5\tC0\td", "3.5\tC3\ta", "4\tC4\te", "9.5\tC2\tc", "10.25\tC1\tb"),
           "what one that was killed has not written is missed, and the log is not closed")
    put(folder, "r10", log("2026-01-01-00-00-03", "2026-01-01-00-00-04", "4\tC0\te"))
    merged(1, "uid C0 is also in")
    put(folder, "r10", log("2026-01-01-00-00-03", "2026-01-01-00-00-04", "4\tC4\te", fields="ts\tuid\tother"))
    merged(1, "conn.log is not merged")
    put(folder, "r10", "ts,uid\n1,C9\n")
    merged(1, "expected a log of Zeek's")
    for wrong, says in ((log("1", "2", "3.5"), "lines as their header says, got '3.5'"),
                        ("#fields\tts\tuid\n1\tC1\n", "lines as their header says"),
                        ("#separator \\x\n#fields\tts\n", "lines as their header says"),
                        ('{"ts": 1}\n5\n', "an object in each line, got '5'"),
                        ('{"ts": 1}\n{"ts"\n', "an object in each line")):
        put(folder, "r1", wrong, "odd.log")
        merged(1, f"odd.log: expected {says}")
    os.remove(os.path.join(folder, "r1", "odd.log"))
    put(folder, "r1", '{"ts": NaN, "uid": 5}\n{"ts": [1]}\n{"ts": 1}\n', "odd.log")
    expect(merged(1, "", "odd.log") == '{"ts": 1}\n{"ts": [1]}\n{"ts": NaN, "uid": 5}\n', "what is no time comes last")
    os.remove(os.path.join(folder, "r1", "odd.log"))
    put(folder, "r10", '{"ts": 1.5, "uid": "C9"}\n', "weird.log")
    put(folder, "r1", '{"ts": 10.5, "uid": "C1"}\n{"ts": 1.25, "uid": "C1"}\n', "weird.log")
    expect(merged(1, "", "weird.log") == '{"ts": 1.25, "uid": "C1"}\n{"ts": 1.5, "uid": "C9"}\n{"ts": 10.5, "uid": "C1"}\n',
           "JSON by time, whatever became of another log")


def refusals(options, folder):
    def refused(words, *arguments, status=2):
        done = sm_zeek(options, *arguments, folder=folder)
        expect(done.returncode == status and words in done.stdout, f"refused: {done.stdout.strip().splitlines()[-1:]}", done)

    zeek = ["--zeek", options.standin]
    refused("-G: expected arguments of Zeek's but for", "run", *zeek, "-i", "lo", "--", "-G", "seeds")
    refused("nosuch: no such program", "run", "--zeek", "nosuch", "-i", "lo", status=1)
    refused("expected MOST or LEAST-MOST", "run", *zeek, "--replicas", "4-2", "-i", "lo")
    refused("not allowed with argument", "run", *zeek, "-i", "lo", "-r", "x")
    refused("expected a folder", "merge", "nosuch")
    os.makedirs(os.path.join(folder, "old", "r1"))
    refused("replicas of an earlier run", "run", *zeek, "--logs", "old", "-i", "lo", status=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("build", "capture", "standin"):
        parser.add_argument("--" + name, required=True, type=os.path.abspath)
    options = parser.parse_args()
    with open(options.capture, "rb") as file:
        data = file.read()
    at, options.packets = 24, 0
    while at + 16 <= len(data):
        options.packets, at = options.packets + 1, at + 16 + int.from_bytes(data[at + 8:at + 12], "little")
    seed = int(os.environ.get("SM_SEED", random.randrange(1 << 31)))
    rng = random.Random(seed)
    real = shutil.which("zeek") or shutil.which("bro")
    print(f"SM_SEED={seed}; run with a stand-in{f' and {real}' if real else ', there is no zeek here'}")
    for test, *arguments in ((identities, rng, options.standin), (same, rng, options.standin, True),
                             (cluster, rng, options.standin), (merging,), (refusals,),
                             *([(same, rng, real, False)] if real else [])):
        with tempfile.TemporaryDirectory() as folder:
            test(options, folder, *arguments)
    checks.finish()


main()
