"""Does the faults of a plan to a stage, and undoes them in time. Several may stand at once, also of the same kind."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.chaos.judge import Harm
from tests.chaos.plan import Fault
from tests.chaos.stage import USERS, Stage, uptime


class Injector:
    """`harms` tells the judge what was done to the witnesses of runs, `done` people what was done."""

    def __init__(self, stage: Stage, log: Callable[[str], None]) -> None:
        self.stage = stage
        self.log = log
        self.harms: list[Harm] = []
        self.done: Counter[str] = Counter()
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._cuts: Counter[str] = Counter()
        self._offs: Counter[str] = Counter()
        self._fills: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, faults: tuple[Fault, ...]) -> None:
        """All of them, at their moments from now on; returns when each is undone."""
        begin = time.monotonic()
        left = sorted(faults, key=lambda fault: fault.at)
        while left or self._undo:
            now = time.monotonic()
            for entry in sorted(self._undo, key=lambda entry: entry[0]):
                if entry[0] <= now:
                    self._undo.remove(entry)
                    entry[1]()
            while left and begin + left[0].at <= now:
                self._inject(left.pop(0))
            self.stage.pause(0.05)

    def _inject(self, fault: Fault) -> None:
        self.log(f"{uptime():.2f} {fault.kind} {fault.host} {fault.user} for {fault.length:g} s")
        what, _, where = fault.kind.partition(" ")
        done: bool
        if fault.kind == "cut host":
            done = self._cut(fault)
        elif fault.kind == "power off host":
            done = self._power_off(fault)
        elif fault.kind == "disk full":
            done = self._fill(fault)
        elif fault.kind == "kill machine":
            self._keep_away("wants_server", fault.length)
            done = bool([pid for pid in self._machine() if self._signal(pid, signal.SIGKILL)]) | self._kill_database(fault)
        elif fault.kind == "kill database":
            done = self._kill_database(fault)
        elif fault.kind == "stop database":
            process = self.stage.database._process
            done = process is not None and self._stop([process.pid], fault.length)
        else:
            pids = self._pids(where, fault)
            if what == "stop":
                done = self._stop(pids, fault.length)
            else:
                if where == "server":
                    self._keep_away("wants_server", fault.length)
                if where in ("supervisor", "both") and pids:
                    self._harm(fault.host, fault.user, 0.0, kills_witness=True)
                if where == "worker" and pids:
                    self._harm(fault.host, fault.user, 0.0, kills_witness=False)
                done = bool([pid for pid in pids if self._signal(pid, signal.SIGKILL)])
        self.done[fault.kind if done else f"({fault.kind}: nothing there)"] += 1

    def _pids(self, where: str, fault: Fault) -> list[int]:
        match where:
            case "server":
                found = [self.stage.server_pid()]
            case "user-server":
                found = [self.stage.user_server_pid(fault.user)]
            case "worker":
                return self.stage.exec_pids(fault.host, fault.user, "--work")
            case "supervisor":
                return self.stage.exec_pids(fault.host, fault.user, "--supervise")
            case _:
                return [pid for what in ("--supervise", "--work") for pid in self.stage.exec_pids(fault.host, fault.user, what)]
        return [pid for pid in found if pid is not None]

    def _machine(self) -> list[int]:
        pids = [self.stage.server_pid(), *(self.stage.user_server_pid(user) for user in USERS)]
        return [pid for pid in pids if pid is not None]

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + seconds, action))

    def _stop(self, pids: list[int], seconds: float) -> bool:
        stopped = [pid for pid in pids if self._signal(pid, signal.SIGSTOP)]
        for pid in stopped:
            self._later(seconds, lambda pid=pid: self._signal(pid, signal.SIGCONT) and None)
        return bool(stopped)

    def _keep_away(self, wish: str, seconds: float) -> None:
        self._waits[wish] += 1
        setattr(self.stage, wish, False)

        def back() -> None:
            self._waits[wish] -= 1
            setattr(self.stage, wish, not self._waits[wish])

        self._later(seconds, back)

    def _kill_database(self, fault: Fault) -> bool:
        self._keep_away("wants_database", fault.length)
        if self.stage.database._process is None:
            return False
        with suppress(AttributeError):  # the keeper is just starting it: then that start fails
            self.stage.database.kill()
        return True

    def _harm(self, host: str, user: str | None, seconds: float, *, kills_witness: bool) -> None:
        now = uptime()
        self.harms.append(Harm(now, now + seconds, host, user, kills_witness))

    def _cut(self, fault: Fault) -> bool:
        self._harm(fault.host, None, fault.length, kills_witness=False)
        self._cuts[fault.host] += 1
        self.stage.hosts.cut(fault.host)

        def join() -> None:
            self._cuts[fault.host] -= 1
            if not self._cuts[fault.host]:
                self.stage.hosts.join(fault.host)

        self._later(fault.length, join)
        return True

    def _power_off(self, fault: Fault) -> bool:
        self._harm(fault.host, None, fault.length, kills_witness=True)
        self._offs[fault.host] += 1
        if self._offs[fault.host] > 1:
            self._later(fault.length, lambda: self._power_on(fault.host))
            return False
        was_cut = bool(self._cuts[fault.host])
        self.stage.hosts.cut(fault.host)  # nobody hears of it
        self.stage.hosts.kill(fault.host)
        if not was_cut:
            self.stage.hosts.join(fault.host)
        self._later(fault.length, lambda: self._power_on(fault.host))
        return True

    def _power_on(self, host: str) -> None:
        self._offs[host] -= 1
        if not self._offs[host]:
            self.stage.hosts.start(host)

    def _fill(self, fault: Fault) -> bool:
        """The user's run directories on all machines: no byte is free."""
        self._fills[fault.user] += 1
        place = self.stage.run_dir(fault.user) / "fill"
        _fill_up(place)

        def free() -> None:
            self._fills[fault.user] -= 1
            if not self._fills[fault.user]:
                place.unlink(missing_ok=True)

        self._later(fault.length, free)
        return True


def _fill_up(place: Path) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    os.write(descriptor, b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    finally:
        os.close(descriptor)


