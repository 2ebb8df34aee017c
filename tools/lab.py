# SPDX-License-Identifier: BSD-2-Clause
"""Hosts in network namespaces, for the samples, the live tests and the demo.

enter() puts the calling program into mount, network and process namespaces of its own: everything that is made there,
and every process that is started there, is gone with the program, however it ends. As root it does so directly,
otherwise as the root of a user namespace.
"""

import atexit
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """There is neither root nor a user namespace to be had; the text says why."""


def check(result, what):
    if result != 0:
        raise Unavailable(f"{what}: {os.strerror(ctypes.get_errno())}")


def quiet(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")


def unshare():
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID
    if user == 0 and libc.unshare(flags) == 0:
        return
    # Not root, or a root that may not (a container's).
    check(libc.unshare(flags | CLONE_NEWUSER), "no right to make namespaces, and no user namespace to be root in")
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as proc:
            proc.write(text)


def furnish():
    """In the new process namespace: its own /proc and /run, and a try whether links can be made."""
    quiet("mount", "--make-rprivate", "/")
    quiet("mount", "-t", "proc", "proc", "/proc")
    quiet("mount", "-t", "tmpfs", "tmpfs", "/run")
    quiet("ip", "link", "add", "try0", "type", "veth", "peer", "name", "try1")
    quiet("ip", "link", "del", "try0")
    quiet("ip", "link", "set", "lo", "up")


def enter():
    """Go on inside the new namespaces, as their first process. Raises Unavailable (and is still outside)."""
    say, hear = socket.socketpair()
    watcher = os.fork()
    if watcher == 0:
        say.close()
        _inside_or_exit(hear)
        return
    hear.close()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: _forward(watcher, got))
    reason = say.recv(4096).decode()
    _, status = os.waitpid(watcher, 0)
    if reason != "in":
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Unavailable(reason or "the first process of the namespaces could not be started")
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _forward(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _inside_or_exit(hear):
    """unshare() puts children, not the caller, into the process namespace: one more fork, and a relay between."""
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        unshare()
        child = os.fork()
        if child != 0:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda got, _: _forward(child, got))
            hear.close()
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        furnish()
    except (Unavailable, OSError) as reason:
        hear.send(str(reason).encode())
        os._exit(1)
    tempfile.tempdir = "/run"  # goes with us
    # The first process of a namespace gets only signals that it handles.
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)
    hear.send(b"in")
    hear.close()


def _terminated(number, _):
    raise SystemExit(128 + number)


def others():
    """The processes in this namespace besides this one: (pid, command line). The dead that nobody waits for are
    not counted."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as file:
                state = file.read().rpartition(")")[2].split()[0]
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state != "Z":
            found.append((int(entry), command))
    return found


def wait_until(condition, seconds, step=0.05):
    """The condition's value once it is true, or its last one when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


class Host:
    """A network namespace."""

    def __init__(self, name):
        self.name = name
        self.prefix = ["nsenter", f"--net=/run/netns/{name}", "--"]
        quiet("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments):
        subprocess.run(["ip", "-n", self.name, *arguments], check=True)

    def command(self, *command):
        return [*self.prefix, *map(str, command)]

    def run(self, *command, timeout=30, check=True, **more):
        """Run to its end; what it wrote is in the result."""
        return subprocess.run(self.command(*command), timeout=timeout, check=check, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, **more)

    def start(self, *command, **more):
        return subprocess.Popen(self.command(*command), stdin=subprocess.DEVNULL, text=True, **more)

    def socket(self, family, kind, protocol=0):
        """A socket of this host. The calling thread is elsewhere for a moment only."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self.name}", "rb") as there:
            check(libc.setns(there.fileno(), CLONE_NEWNET), f"setns to {self.name}")
            try:
                return socket.socket(family, kind, protocol)
            finally:
                check(libc.setns(home.fileno(), CLONE_NEWNET), "setns back")

    def write(self, path, text):
        """Write a setting under /proc/sys/net."""
        self.run("sh", "-c", f"echo {text} > /proc/sys/net/{path}")


def link(a, name_a, b, name_b, offloads=False, queues=1):
    """A veth pair from host to host. Offloads are off: what crosses it is what a wire would carry."""
    several = ["numrxqueues", str(queues), "numtxqueues", str(queues)]
    subprocess.run(["ip", "link", "add", name_a, "netns", a.name, *several, "type", "veth", "peer", "name", name_b,
                    "netns", b.name, *several], check=True)
    for host, name in ((a, name_a), (b, name_b)):
        if not offloads:
            host.run("ethtool", "-K", name, "rx", "off", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        host.write(f"ipv6/conf/{name}/accept_dad", 0)
        host.ip("link", "set", name, "up")


class Path:
    """client -- middle -- server: the middle has an interface to each side, no addresses, and forwards nothing."""

    CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
    CLIENT6, SERVER6 = "fd77::1", "fd77::2"

    def __init__(self, **options):
        self.client, self.middle, self.server = Host("client"), Host("middle"), Host("server")
        self.middle.write("ipv6/conf/all/disable_ipv6", 1)
        self.middle.write("ipv6/conf/default/disable_ipv6", 1)
        link(self.client, "eth0", self.middle, "left", **options)
        link(self.middle, "right", self.server, "eth0", **options)
        for host, address, address6 in ((self.client, self.CLIENT, self.CLIENT6),
                                        (self.server, self.SERVER, self.SERVER6)):
            host.ip("addr", "add", f"{address}/16", "dev", "eth0")
            host.ip("addr", "add", f"{address6}/64", "dev", "eth0", "nodad")


class Probe:
    """UDP with sequence numbers from host to host, over several flows: sees what is lost or reordered.

    Starts with the object; counts() at any time; stop() waits for what is under way and gives the last counts.
    """

    HEADER = struct.Struct("!QIQ")  # sequence number, flow, sending time
    PORT = 7007

    def __init__(self, sender, receiver, address, flows=16, rate=1000, size=200):
        self.address, self.rate, self.size = address, rate, size
        self.sent = [0] * flows
        self.seen = [0] * flows  # highest sequence number + 1
        self.received = self.reordered = self.duplicates = 0
        self.missing = [set() for _ in range(flows)]
        self.worst = 0.0  # seconds from sending to receiving
        self.sending, self.receiving = True, True
        self.inlet = receiver.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF + 25, 8 << 20)  # SO_RCVBUFFORCE
        except OSError:
            self.inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.inlet.bind(("", self.PORT))
        self.inlet.settimeout(0.2)
        self.outlets = [sender.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._send)]
        for thread in self.threads:
            thread.start()

    def _send(self):
        begin = time.monotonic()
        done = 0
        padding = bytes(max(0, self.size - self.HEADER.size))
        while self.sending:
            due = int((time.monotonic() - begin) * self.rate)
            # After a pause of the sender's own, go on at the rate: no burst to make up for it.
            if due - done > 50:
                begin += (due - done - 50) / self.rate
                due = done + 50
            while done < due:
                flow = done % len(self.outlets)
                packet = self.HEADER.pack(self.sent[flow], flow, time.monotonic_ns()) + padding
                try:
                    self.outlets[flow].sendto(packet, (self.address, self.PORT))
                    self.sent[flow] += 1
                except OSError:
                    pass  # never left: has no number
                done += 1
            time.sleep(0.004)

    def _receive(self):
        while self.receiving:
            try:
                packet = self.inlet.recv(2048)
            except TimeoutError:
                continue
            number, flow, then = self.HEADER.unpack_from(packet)
            self.worst = max(self.worst, (time.monotonic_ns() - then) / 1e9)
            self.received += 1
            if number >= self.seen[flow]:
                self.missing[flow].update(range(self.seen[flow], number))
                self.seen[flow] = number + 1
            elif number in self.missing[flow]:
                self.missing[flow].discard(number)
                self.reordered += 1
            else:
                self.duplicates += 1

    def counts(self):
        """What has been sent and received so far; a gap counts as lost until its packet comes."""
        return {"sent": sum(self.sent), "received": self.received, "lost": sum(map(len, self.missing)),
                "reordered": self.reordered, "duplicates": self.duplicates, "worst_ms": round(self.worst * 1000, 3)}

    def stop(self):
        self.sending = False
        self.threads[1].join()
        wait_until(lambda: sum(self.seen) == sum(self.sent), 2)
        self.receiving = False
        self.threads[0].join()
        for flow, seen in enumerate(self.seen):
            self.missing[flow].update(range(seen, self.sent[flow]))
        for outlet in (self.inlet, *self.outlets):
            outlet.close()
        return self.counts()


class Service:
    """A service under `smctl run`, in a folder of its own unless it is given one."""

    def __init__(self, build, host=None, folder=None):
        self.build, self.host = build, host
        # Names of sockets are short, which those of given folders need not be.
        own = tempfile.mkdtemp(prefix="sm-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        self.folder = folder or own
        self.process = None
        parts = ("orchestrator", "runtime/switch", "middleboxes/ratelimiter", "middleboxes/nat")
        self.environment = dict(os.environ, SPLITMERGE_RUN=os.path.join(own, "run"))
        self.environment["PATH"] = ":".join([os.path.join(build, part) for part in parts] + [os.environ["PATH"]])

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def program(self, name, *arguments):
        for part in ("orchestrator", "runtime/switch", "middleboxes/ratelimiter", "middleboxes/nat", "bin"):
            path = os.path.join(self.build, part, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return [path, *map(str, arguments)]
        raise FileNotFoundError(f"{self.build} has no {name}")

    def start(self, name, *arguments):
        command = self.program("smctl", "run", self.path(name), *arguments)
        with open(self.path("log"), "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.host.command(*command) if self.host else command, cwd=self.folder,
                                            env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self.process

    def log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def smctl(self, *arguments, timeout=30):
        return subprocess.run(self.program("smctl", *arguments), cwd=self.folder, env=self.environment,
                              timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def status(self):
        """The status, or None while there is none."""
        done = self.smctl("status", "--json")
        try:
            return json.loads(done.stdout) if done.returncode == 0 else None
        except ValueError:
            return None

    def wait_running(self, seconds=20):
        """The status once packets flow; None when the service has ended or the time is over."""
        def running():
            if self.process.poll() is not None:
                return True
            status = self.status()
            return status if status and status.get("state") in ("running", "gated", "ended") else None
        status = wait_until(running, seconds, 0.1)
        return status if isinstance(status, dict) else None

    def stop(self, seconds=20):
        """End it as a user would, by SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -signal.SIGKILL
