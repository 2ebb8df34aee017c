#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The units: systemd-analyze finds nothing wrong with them, and a small stand-in of the manager, which goes by what they
say, runs a service: the notifications, the watchdog of a thread that is stopped, the arena kept over a switch that is
killed, replicas that outlive their orchestrator. And the capabilities that they give are enough for interfaces."""

import array
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time

import live
from live import expect, lab

UNITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "systemd")
PROGRAMS = {"sm-switch": "runtime/switch", "sm-orchestrator": "orchestrator"}
FLOWS = 500
NOBODY = 65534
SERVICE = """service: units
middlebox: {{exec: sm-ratelimiter, args: [--policy, policy.yaml]}}
replicas: {{start: 2, min: 1, max: 4}}
ports:
  in: {input}
  out: {{discard: true}}
limits: {{flows: 64k, memory: 64MiB}}
"""
POLICY = "limits: [{name: all, per: flow, rate: 1kbit, burst: 200B}]\n"  # never forgotten: none gets full again
PTRACE_INTERRUPT, PTRACE_SEIZE, PTRACE_DETACH = 0x4207, 0x4206, 17
WATCHDOG_US = 200000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def text_of(program):
    with open(os.path.join(UNITS, f"{program}@.service"), encoding="utf-8") as file:
        return file.read()


def setting(program, key):
    return re.search(rf"^{key}=(.*)$", text_of(program), re.M)[1]


def verified(given):
    """By systemd's own tool, over the units as they are, but for where the programs are."""
    tool = shutil.which("systemd-analyze")
    if not expect(tool, "systemd-analyze is here (scripts/setup installs it)"):
        return
    folder = lab.tempfile.mkdtemp(prefix="sm-units-")
    files = [os.path.join(folder, f"{program}@.service") for program in PROGRAMS]
    for program, file in zip(PROGRAMS, files):
        place = os.path.join(given.build, PROGRAMS[program], program)
        with open(file, "w", encoding="utf-8") as unit:
            unit.write(text_of(program).replace(f"ExecStart={program} ", f"ExecStart={place} "))
    done = subprocess.run([tool, "verify", "--man=no", *files], capture_output=True, text=True, timeout=120, check=False)
    expect(done.returncode == 0 and not done.stderr.strip(), "systemd-analyze verify: nothing to say", done.stderr)
    for file in files:
        done = subprocess.run([tool, "security", "--offline=yes", "--threshold=30", "--no-pager", file], timeout=120,
                              capture_output=True, text=True, check=False)
        said = [line.strip("→ ") for line in done.stdout.splitlines() if "Overall" in line]
        expect(done.returncode == 0, f"systemd-analyze security: {said}", done.stderr)
    shutil.rmtree(folder)


class Unit:
    """One program under the manager."""

    def __init__(self, program):
        self.program, self.pid, self.status = program, 0, None
        self.ready, self.stopping, self.pets, self.starts = False, False, 0, 0
        self.kept = {}
        self.room = int(setting(program, "FileDescriptorStoreMax")) if "FileDescriptorStoreMax" in text_of(program) else 0


class Manager:
    """As much of systemd as the units ask for: Type=notify, NotifyAccess=main, the descriptor store, restarts."""

    def __init__(self, service):
        self.service = service
        self.path = os.path.join(service.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(self.path)
        self.units = {program: Unit(program) for program in PROGRAMS}

    def start(self, program):
        unit = self.units[program]
        unit.ready = unit.stopping = False
        unit.starts += 1
        names, kept = ":".join(unit.kept), [os.dup(fd) for fd in unit.kept.values()]

        def hand_over():
            high = [os.dup2(fd, 100 + number) for number, fd in enumerate(kept)]
            for number, fd in enumerate(high):
                os.dup2(fd, 3 + number, inheritable=True)

        script = 'export WATCHDOG_PID=$$; [ -z "$LISTEN_FDS" ] || export LISTEN_PID=$$; exec "$@"'
        environment = dict(self.service.environment, NOTIFY_SOCKET=self.path, WATCHDOG_USEC=str(WATCHDOG_US))
        if kept:
            environment |= {"LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": names}
        command = self.service.program(program, "--log-format", "json", self.service.path("service.yaml"))
        with open(self.service.path("log"), "a", encoding="utf-8") as log:
            process = subprocess.Popen(["sh", "-c", script, "sh", *command], cwd=self.service.folder, env=environment,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=hand_over,
                                       pass_fds=range(3, 3 + len(kept)))
        for fd in kept:
            os.close(fd)
        unit.pid = process.pid
        process.returncode = 0  # turn() waits for it

    def _hear(self):
        data, parts, _, _ = self.socket.recvmsg(4096, 512)
        fds, pid = array.array("i"), 0
        for _, kind, part in parts:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(part[:len(part) - len(part) % fds.itemsize])
            else:
                pid = struct.unpack("3i", part)[0]
        unit = next((unit for unit in self.units.values() if unit.pid == pid), None)
        said = dict(line.split("=", 1) for line in data.decode().splitlines())
        if unit:  # NotifyAccess=main: of nobody else
            unit.ready |= said.get("READY") == "1"
            unit.stopping |= said.get("STOPPING") == "1"
            unit.pets += said.get("WATCHDOG") == "1"
            if said.get("FDSTOREREMOVE") == "1" and said["FDNAME"] in unit.kept:
                os.close(unit.kept.pop(said["FDNAME"]))
            if said.get("FDSTORE") == "1" and len(unit.kept) < unit.room:
                unit.kept[said["FDNAME"]] = fds.pop()
        for fd in fds:
            os.close(fd)

    def _look_at_end(self, unit, status):
        unit.status, unit.pid = status, 0
        by_signal = os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGTERM
        again = "RestartForceExitStatus" in text_of(unit.program) and os.WIFEXITED(status) and \
            str(os.WEXITSTATUS(status)) == setting(unit.program, "RestartForceExitStatus")
        if (by_signal and setting(unit.program, "Restart") == "on-abnormal") or again:
            time.sleep(0.05)
            self.start(unit.program)

    def turn(self):
        while select.select([self.socket], [], [], 0)[0]:
            self._hear()
        for unit in self.units.values():
            if unit.pid:
                pid, status = os.waitpid(unit.pid, os.WNOHANG)
                if pid:
                    self._look_at_end(unit, status)

    def until(self, condition, seconds=60):
        def turned():
            self.turn()
            return condition()
        return lab.wait_until(turned, seconds, 0.02)


def stop_threads(pid):
    """All but the first: the loop that answers goes on. The stopped."""
    stopped = [int(tid) for tid in os.listdir(f"/proc/{pid}/task") if int(tid) != pid]
    for tid in stopped:
        if libc.ptrace(PTRACE_SEIZE, tid, None, None) != 0 or libc.ptrace(PTRACE_INTERRUPT, tid, None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        os.waitpid(tid, 0x40000000)  # __WALL
    return stopped


def watchdog(manager):
    switch, orchestrator = manager.units.values()
    for unit in (switch, orchestrator):
        unit.pets = 0
        expect(manager.until(lambda unit=unit: unit.pets >= 3), f"{unit.program} tells that it turns")
    stopped = stop_threads(switch.pid)
    expect(stopped, f"{len(stopped)} thread of the switch is stopped")
    time.sleep(WATCHDOG_US / 1e6)
    manager.turn()  # what had been sent before
    switch.pets = 0
    time.sleep(5 * WATCHDOG_US / 1e6)
    manager.turn()
    expect(switch.pets == 0, "it tells nothing any more", switch.pets)
    for tid in stopped:
        libc.ptrace(PTRACE_DETACH, tid, None, None)
    expect(manager.until(lambda: switch.pets >= 2), "and goes on when it turns again")


def replicas_of(status):
    return sorted(replica["pid"] for replica in (status or {}).get("replicas", []) if replica["state"] == "ready")


def deaths(manager, service):
    switch, orchestrator = manager.units.values()
    before = service.status()
    os.kill(orchestrator.pid, signal.SIGKILL)
    expect(manager.until(lambda: orchestrator.starts == 2 and orchestrator.ready), "an orchestrator is killed: the next is ready")
    expect(setting("sm-orchestrator", "KillMode") == "process" and replicas_of(service.status()) == replicas_of(before),
           "replicas live on", replicas_of(before), replicas_of(service.status()))
    before = service.status()
    os.kill(switch.pid, signal.SIGKILL)
    expect(manager.until(lambda: switch.starts == 2 and switch.ready), "the switch is killed: the next is ready", service.log()[-2000:])
    expect(manager.until(lambda: orchestrator.starts >= 3 and orchestrator.ready), "and so is an orchestrator", service.log()[-2000:])

    def goes_on():
        status = service.status()
        return status if status and status["packets"]["in"] > before["packets"]["in"] + FLOWS else None
    after = manager.until(goes_on)
    if not expect(after, "packets are counted on where they were", before, service.status()):
        return
    expect(after["deaths"]["switch"] == 1 and after["flows"]["live"] == after["flows"]["created"] == FLOWS,
           f"the {FLOWS} flows are those that there were", after["flows"], after["deaths"])
    expect(all(held.startswith("held") for held in after["invariants"].values()), "invariants", after["invariants"])

    def checked():  # not while replicas are being replaced
        manager.turn()
        done = service.smctl("check")
        return done if done.returncode != 4 else None
    check = lab.wait_until(checked, 60, 0.1)
    expect(check and check.returncode == 0, f"smctl check: {check and check.stdout.strip()}", check)
    expect(list(switch.kept) == ["arena"], "the arena is still kept", switch.kept)


def run_as_units(given):
    service = lab.Service(given.build)
    service.write("policy.yaml", POLICY)
    service.write("service.yaml", SERVICE.format(input=f"{{generator: {{flows: {FLOWS}, rate: 5kpps}}}}"))
    manager = Manager(service)
    switch, orchestrator = manager.units.values()
    manager.start("sm-switch")
    if not expect(manager.until(lambda: switch.ready), "the switch is ready", service.log()):
        return
    expect(list(switch.kept) == ["arena"], "and has its arena kept", switch.kept)
    manager.start("sm-orchestrator")
    expect(manager.until(lambda: orchestrator.ready), "the orchestrator is ready", service.log())
    expect(manager.until(lambda: ((service.status() or {}).get("flows") or {}).get("live") == FLOWS), "all flows are there")
    watchdog(manager)
    deaths(manager, service)
    os.kill(orchestrator.pid, signal.SIGTERM)
    expect(manager.until(lambda: not orchestrator.pid and not switch.pid), "SIGTERM to the orchestrator ends both", service.log()[-2000:])
    expect((switch.status, orchestrator.status) == (0, 0), "with status 0", switch.status, orchestrator.status)
    expect(switch.stopping and orchestrator.stopping, "both had told that they stop")
    expect(not switch.kept, "nothing is kept any longer")
    live.expect_no_sanitizer(service.log())


def with_capabilities(given):
    """On interfaces as nobody, with what the unit gives."""
    path = lab.Path()
    granted = setting("sm-switch", "AmbientCapabilities").lower().replace("cap_", "+").replace(" ", ",")
    expect(setting("sm-switch", "CapabilityBoundingSet") == setting("sm-switch", "AmbientCapabilities"), "no others")
    for driver in ("xdp", "pcap"):
        service = lab.Service(given.build, path.middle)
        service.write("policy.yaml", POLICY)
        service.write("service.yaml", SERVICE.format(input=f"{{interface: left, driver: {driver}}}"))
        for place in (os.path.dirname(service.folder), service.folder):
            os.chmod(place, 0o755)
        os.chown(service.folder, NOBODY, NOBODY)
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", f"--bounding-set=-all,{granted}",
                f"--inh-caps=-all,{granted}", f"--ambient-caps=-all,{granted}"]
        with open(service.path("log"), "w", encoding="utf-8") as log:
            service.process = subprocess.Popen(path.middle.command(*drop, *service.program("smctl", "run", service.path("service.yaml"))),
                                               cwd=service.folder, env=service.environment, stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log)
        status = service.wait_running(60)
        expect(status, f"{driver}: the service runs as nobody, with {granted}", service.log())
        if status:
            print(f"     {status['ports'][0]['driver']}")
        expect(service.stop() == 0, f"{driver}: it ends", service.log())


def main():
    given = live.arguments(__doc__)
    verified(given)
    live.enter_or_skip()
    run_as_units(given)
    with_capabilities(given)
    live.expect_alone()
    live.finish()


main()
