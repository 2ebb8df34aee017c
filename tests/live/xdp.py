#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A limiter between two interfaces by each driver that the kernel allows: offloads on, odd frames, split and merged,
replicas killed, links down and up, the switch stopped so that packets are missed. Frames and counters add up to the
last one. Then what is refused, that nothing stays on an interface after a kill, and an interface that goes."""

import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import live
from live import expect, lab

POLICY = 'limits:\n  - {name: udp, match: "udp port 5202", per: flow, rate: 50Mbit, burst: 4MiB}\n'
SERVICE = """service: xdp
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 1, min: 1, max: 3}}
ports:
  in: {{interface: {left}, driver: {driver}}}
  out: {out}
limits: {{flows: 64k, memory: 256MiB}}
"""
RIGHT = "{{interface: right, driver: {driver}}}"
NAMES = {"xdp-native": "AF_XDP (native, copy)", "xdp-generic": "AF_XDP (generic, copy)", "pcap": "libpcap+libnet"}
# Takes the tag off the packet, as the kernel does for a card that puts it there.
TAGGER = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int tag(struct __sk_buff *skb) { return bpf_skb_vlan_push(skb, 0x0081, 77) ? 2 : 0; }
char _license[] SEC("license") = "GPL";
"""
SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL = 263, 8, 3


def udp(number, flow, size):
    payload = struct.pack("!II", flow, number) + bytes(max(0, size - 50))
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), number & 0xFFFF, 0, 64, 17, 0,
                     bytes((10, 1, 0, flow)), bytes((10, 2, 0, 1)))
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
    return ip + struct.pack("!HHHH", 1000 + flow, 9, 8 + len(payload), 0) + payload


series = itertools.count(1)


def frames(count, sizes=(50, 90, 300, 1000, 1500)):
    """A series of all kinds that the wire carries, to a station of its own that nobody here is; all are different."""
    head = bytes((2, 0, 0, 0, 9, next(series), 2, 0, 0, 0, 0, 1))
    for number in range(count):
        flow, size = number % 16, sizes[number % len(sizes)]
        kind = number % 7 if size <= 1000 else 0
        if kind == 1:
            yield head + struct.pack("!HHH", 0x8100, 5, 0x0800) + udp(number, flow, size)
        elif kind == 2:
            yield head + struct.pack("!HHHHH", 0x88A8, 9, 0x8100, 5, 0x0800) + udp(number, flow, size)
        elif kind == 3:
            yield head + struct.pack("!HI", 0x88B5, number) + bytes(size)  # not IP
        elif kind == 4:
            yield head + struct.pack("!HI", 46, number) + bytes(42)  # 802.3: a length
        else:
            yield head + struct.pack("!H", 0x0800) + udp(number, flow, size)


class Tap:
    """What comes to an interface of a host, with the tags that the kernel keeps beside it. Only frames of ours."""

    def __init__(self, host, interface):
        self.socket = host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.settimeout(0.2)
        self.came, self.running = [], True
        self.thread = threading.Thread(target=self.receive, daemon=True)
        self.thread.start()

    def receive(self):
        while self.running:
            try:
                data, extra, _, sender = self.socket.recvmsg(1 << 16, 256)
            except TimeoutError:
                continue
            if sender[2] == socket.PACKET_OUTGOING or data[:5] != b"\x02\x00\x00\x00\x09":
                continue
            for level, kind, value in extra:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value)
                    if status & 0x10:  # TP_STATUS_VLAN_VALID
                        data = data[:12] + struct.pack("!HH", tpid if status & 0x40 else 0x8100, tci) + data[12:]
            self.came.append(data)

    def of(self, what):
        """What has come of a series."""
        return [frame for frame in self.came if frame[:6] == what[0][:6]]

    def stop(self):
        self.running = False
        self.thread.join()
        self.socket.close()


def sender(host, interface="eth0"):
    outlet = host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    outlet.bind((interface, 0))
    return outlet


def send(outlet, what, pause=0.004):
    for number, frame in enumerate(what):
        outlet.send(frame)
        if pause and number % 32 == 31:
            time.sleep(pause)


def link_counters(host, interface):
    said = json.loads(host.run("ip", "-s", "-j", "link", "show", "dev", interface).stdout)
    return said[0]["stats64"]


class Trial:
    """A service between two interfaces."""

    def __init__(self, build, path, driver, left="left", out=RIGHT):
        self.path, self.driver = path, driver
        self.service = lab.Service(build, path.middle)
        self.service.write("policy.yaml", POLICY)
        self.service.write("service.yaml", SERVICE.format(left=left, driver=driver, out=out.format(driver=driver)))
        self.service.start("service.yaml", "--report", "report.json")
        self.status = self.service.wait_running(60)

    def port(self, name):
        status = self.service.status()
        if status is None:
            print(self.service.log())
            raise SystemExit("the service has ended")
        return next(port for port in status["ports"] if port["name"] == name)

    def received(self):
        """What came in on the left by the switch's account."""
        port = self.port("left")
        return port["rx_packets"] + port["rx_missed"]

    def stop(self):
        """End it; the report, which must add up."""
        code = self.service.stop()
        expect(code == 0, f"{self.driver}: SIGTERM ends the service with status {code}", self.service.log())
        live.expect_no_sanitizer(self.service.log())
        with open(self.service.path("report.json"), encoding="utf-8") as file:
            report = json.load(file)
        packets = report["packets"]
        expect(packets["in"] + packets["generated"] == packets["out"] + sum(packets["dropped"].values()),
               f"{self.driver}: {packets['in']} in = {packets['out']} out + dropped", packets)
        expect(set(report["invariants"].values()) == {"held"}, f"{self.driver}: every invariant held", report["invariants"])
        came = sum(port["rx_packets"] for port in report["ports"])
        expect(packets["in"] == came, f"{self.driver}: what the ports gave is what came in: {came}", packets)
        refused = sum(port["tx_failed"] for port in report["ports"])
        expect(packets["dropped"].get("refused", 0) == refused,
               f"{self.driver}: {refused} refused by interfaces, dropped as that", packets)
        return report


def whole(trial, tap, what, name):
    """Every frame comes, as it was sent, those of a flow in order; but for what the counters say was lost."""
    outlet = sender(trial.path.client)
    missed, dropped = trial.port("left")["rx_missed"], sum(trial.service.status()["packets"]["dropped"].values())
    send(outlet, what)
    outlet.close()

    def lost():
        status = trial.service.status()
        return trial.port("left")["rx_missed"] - missed + sum(status["packets"]["dropped"].values()) - dropped

    lab.wait_until(lambda: len(tap.of(what)) + lost() >= len(what), 20)
    came, gone = tap.of(what), lost()
    # What is lost may also be the kernel's own; that all counters add up is seen elsewhere.
    expect(len(what) - gone <= len(came) <= len(what),
           f"{trial.driver}: {name}: {len(what)} frames, {len(came)} came, {gone} counted as lost", trial.service.status())
    places = {frame: place for place, frame in enumerate(what)}
    strange = [frame.hex()[:80] for frame in came if frame not in places]
    expect(not strange and len(set(came)) == len(came), f"{trial.driver}: {name}: as they were sent, once", strange[:3])
    flows = {}
    for frame in came:
        # What is tagged the sender's kernel puts now in one queue, now in another; what is not IP goes ahead.
        if frame[12:14] == b"\x08\x00":
            flows.setdefault(places.get(frame, 0) % 16, []).append(places.get(frame, 0))
    expect(all(order == sorted(order) for order in flows.values()), f"{trial.driver}: {name}: in order")


def missed(trial):
    """The switch stands still while more comes than can wait: the rest is counted as missed, to the last one."""
    outlet = sender(trial.path.client)

    def counts():
        return trial.received(), link_counters(trial.path.client, "eth0")["tx"]["packets"]

    # What was sent a moment ago may not be counted as received yet.
    before, sent = counts()
    while time.sleep(0.5) or (before, sent) != counts():
        before, sent = counts()
    pid = next(pid for pid, command in lab.others() if "sm-switch" in command.split(" ")[0])
    os.kill(pid, signal.SIGSTOP)
    send(outlet, list(frames(6000, (50,))), 0)
    os.kill(pid, signal.SIGCONT)
    outlet.close()

    def difference():
        now = link_counters(trial.path.client, "eth0")["tx"]["packets"] - sent
        return now - (trial.received() - before)

    expect(lab.wait_until(lambda: difference() == 0, 10), f"{trial.driver}: received + missed = what was sent",
           difference(), trial.port("left"))
    if trial.driver != "pcap":  # it has more room
        expect(trial.port("left")["rx_missed"] > 0, f"{trial.driver}: {trial.port('left')['rx_missed']} were missed")


def checksum_errors(host):
    rows = [line.split() for line in host.run("cat", "/proc/net/snmp").stdout.splitlines() if line[:4] in ("Tcp:", "Udp:")]
    found = [dict(zip(rows[at], rows[at + 1])) for at in (0, 2)]
    return sum(int(row["InCsumErrors"]) for row in found)


def loaded(trial, seconds):
    """iperf3 with the sender's offloads on, TCP both ways and UDP, under scaling and the death of a replica."""
    path, results = trial.path, {}

    def measure(name, port, *options):
        server = path.server.start("iperf3", "-s", "-1", "-p", port, stdout=subprocess.DEVNULL)
        lab.wait_until(lambda: f":{port} " in path.server.run("ss", "-ltn").stdout, 10)
        said = path.client.run("iperf3", "-J", "-c", path.SERVER, "-p", port, "-t", seconds, *options, check=False,
                               timeout=seconds + 60)
        results[name] = json.loads(said.stdout or "{}").get("end", {}), said.stdout[-300:]
        server.kill()
        server.wait(10)

    before = sum(map(checksum_errors, (path.client, path.server)))
    threads = [threading.Thread(target=measure, args=arguments) for arguments in (
        ("TCP", 5201), ("TCP back", 5203, "-R"), ("UDP", 5202, "-u", "-b", "10M", "-l", "1200"))]
    for thread in threads:
        thread.start()
    for replicas in (3, 1, 3):
        for _ in range(5):
            done = trial.service.smctl("scale", replicas, "--json", timeout=90)
            if done.returncode == 0 or "abandoned" not in done.stderr + done.stdout:
                break  # a machine that stands still abandons moves rather than drop packets
        expect(done.returncode == 0, f"{trial.driver}: scale {replicas}", done.stdout, done.stderr)
    os.kill(trial.service.status()["replicas"][0]["pid"], signal.SIGKILL)
    expect(lab.wait_until(lambda: trial.service.status()["deaths"]["replicas"] >= 1, 20), f"{trial.driver}: a replica died")
    for thread in threads:
        thread.join()
    for name, (result, said) in results.items():
        carried = result.get("sum_received", result.get("sum", {})).get("bytes", 0)
        expect(carried > 100000, f"{trial.driver}: iperf3 {name}: {carried} bytes", said)
    wrong = sum(map(checksum_errors, (path.client, path.server))) - before
    expect(wrong == 0, f"{trial.driver}: {wrong} wrong checksums arrived")


def jumbo(trial, tap):
    for host, interface in ((trial.path.client, "eth0"), (trial.path.middle, "left"), (trial.path.middle, "right"),
                            (trial.path.server, "eth0")):
        host.ip("link", "set", interface, "mtu", "9000")
    whole(trial, tap, list(frames(200, (8000, 1900, 3800, 50))), "jumbo frames")


def tagged(trial, tap, folder):
    """Tags that the sender's kernel has put beside the packet."""
    with open(os.path.join(folder, "tagger.c"), "w", encoding="ascii") as file:
        file.write(TAGGER)
    subprocess.run(["clang", "-O2", "-target", "bpf", f"-I/usr/include/{os.uname().machine}-linux-gnu", "-c", "tagger.c",
                    "-o", "tagger.o"], cwd=folder, check=True)
    client = trial.path.client
    client.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    client.run("tc", "filter", "add", "dev", "eth0", "egress", "bpf", "da", "obj", f"{folder}/tagger.o", "sec", "tc")
    outlet = sender(client)
    what = [frame for frame in frames(50, (300,)) if frame[12:14] == b"\x08\x00"]
    send(outlet, what)
    outlet.close()
    expected = [frame[:12] + b"\x81\x00\x00\x4d" + frame[12:] for frame in what]
    lab.wait_until(lambda: len(tap.of(what)) >= len(expected), 20)
    expect(sorted(tap.of(what)) == sorted(expected), f"{trial.driver}: {len(expected)} tags that a card was to put there",
           tap.of(what)[:1])
    client.run("tc", "qdisc", "del", "dev", "eth0", "clsact")


def interrupted(trial, tap):
    """Both links down and up again: what cannot leave is counted, and then everything leaves again."""
    middle, outlet = trial.path.middle, sender(trial.path.client)
    failed = trial.port("right")["tx_failed"]
    middle.ip("link", "set", "right", "down")
    send(outlet, list(frames(200, (100,))))
    expect(lab.wait_until(lambda: trial.port("right")["tx_failed"] - failed >= 200, 10),
           f"{trial.driver}: with the link down all of 200 are refused", trial.port("right"))
    middle.ip("link", "set", "right", "up")
    if trial.driver != "pcap":  # libpcap ends with the link that it receives from
        middle.ip("link", "set", "left", "down")
        middle.ip("link", "set", "left", "up")
    lab.wait_until(lambda: all('"operstate":"UP"' in middle.run("ip", "-j", "link", "show", "dev", name).stdout
                               for name in ("left", "right")), 10)
    outlet.close()
    whole(trial, tap, list(frames(300)), "after links were down")


def trial_of(given, driver, path):
    trial = Trial(given.build, path, driver)
    if not expect(trial.status, f"{driver}: the service runs", trial.service.log()):
        return
    expect(all(port["driver"] == NAMES[driver] for port in trial.status["ports"]), f"{driver}: both ports have it",
           trial.status["ports"])
    tap = Tap(path.server, "eth0")
    whole(trial, tap, list(frames(400 if given.slow else 2000)), "frames of all kinds")
    loaded(trial, 3)
    missed(trial)
    jumbo(trial, tap)
    if not driver.startswith("xdp-generic"):  # it does not see them
        tagged(trial, tap, trial.service.folder)
    interrupted(trial, tap)
    tap.stop()
    trial.stop()
    for host in (path.client, path.server):
        host.ip("link", "set", "eth0", "mtu", "1500")
    for name in ("left", "right"):
        path.middle.ip("link", "set", name, "mtu", "1500")


def programs(path):
    """XDP programs on the interfaces of the middle."""
    return path.middle.run("ip", "-d", "link", "show").stdout.count("prog/xdp")


def killed(given, path):
    """Nothing stays on the interfaces when all is killed, and a second service gets them at once."""
    for attempt in (1, 2):
        trial = Trial(given.build, path, "auto")
        expect(trial.status and all(port["driver"] == NAMES["xdp-native"] for port in trial.status["ports"]),
               f"auto, {attempt}: native", trial.service.log())
        expect(programs(path) == 2, "a program on each interface")
        for pid, command in lab.others():
            if "sm-" in command or "smctl" in command:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        trial.service.process.wait()
        expect(lab.wait_until(lambda: programs(path) == 0, 10), "none after SIGKILL to all")


def refused(given, path):
    """One line that says what and why, where it was asked for by name; with auto the other driver, and why."""
    path.middle.ip("link", "add", "none", "type", "bridge")
    path.middle.ip("link", "set", "none", "up")
    trial = Trial(given.build, path, "xdp-native", "none", "{{discard: true}}")
    lines = [line for line in trial.service.log().splitlines() if "AF_XDP" in line]
    expect(trial.status is None and trial.service.process.wait() == 1 and len(lines) == 1 and
           "none: AF_XDP native, copy refused: cannot attach an XDP program: Operation not supported" in lines[0],
           "xdp-native where there is none: refused in one line", trial.service.log())
    for driver, left, out, name, why in (
            ("xdp", "none", "{{discard: true}}", "AF_XDP (generic, copy)", "native, copy refused"),
            ("auto", "none", RIGHT, "libpcap+libnet", "native, copy refused"),
            ("auto", "left", "{{discard: true}}", "libpcap", "this service sends none on")):
        trial = Trial(given.build, path, driver, left, out)
        port = trial.status["ports"][0] if trial.status else {}
        expect(port.get("driver") == name and why in (port.get("why") or ""), f"{driver} on {left}: {name}, and why", port,
               trial.service.log())
        expect(why in trial.service.log() and why in trial.service.smctl("status").stdout, "the log and smctl status say so")
        trial.service.stop()
    path.middle.ip("addr", "add", "10.50.0.1/24", "dev", "left")
    trial = Trial(given.build, path, "auto")
    expect(trial.status and "has an address" in (trial.status["ports"][0]["why"] or ""),
           "auto where this host has an address: its packets stay its own", trial.status)
    trial.service.stop()
    path.middle.ip("addr", "del", "10.50.0.1/24", "dev", "left")
    first = Trial(given.build, path, "xdp")
    second = lab.Service(given.build, path.middle)
    second.write("policy.yaml", POLICY)
    second.write("service.yaml", SERVICE.format(left="left", driver="xdp-native", out="{discard: true}").replace(
        "service: xdp", "service: second"))
    second.start("service.yaml")
    expect(first.status and second.process.wait(60) == 1 and "left: AF_XDP native, copy refused: cannot" in second.log(),
           "an interface that another service has is refused", second.log())
    first.stop()


def gone(given, path, driver):
    """The interface is deleted when nothing has come for a while."""
    trial = Trial(given.build, path, driver)
    expect(trial.status, f"{driver}: the service runs", trial.service.log())
    time.sleep(0.5)
    path.middle.ip("link", "del", "left")
    lab.wait_until(lambda: trial.service.process.poll() is not None, 30)
    expect(trial.service.process.poll() == 1 and "left: the interface is gone" in trial.service.log(),
           f"{driver}: an interface that goes ends the service with a line", trial.service.log())
    live.expect_no_sanitizer(trial.service.log())


def path_of_queues(count):
    path = lab.Path(offloads=True, queues=count)
    # Else a veth leaves packets to the core that they were sent on, and those of two cores have no order.
    for host, name in ((path.client, "eth0"), (path.middle, "left"), (path.middle, "right"), (path.server, "eth0")):
        host.run("ethtool", "-K", name, "gro", "on")
    return path


def main():
    given = live.arguments(__doc__)
    live.enter_or_skip()
    path = path_of_queues(2)
    for driver in os.environ.get("SM_DRIVERS", " ".join(NAMES)).split():
        trial_of(given, driver, path)
    killed(given, path)
    refused(given, path)
    gone(given, path, "xdp")
    live.expect_alone()
    live.finish()


if __name__ == "__main__":
    main()
