"""Does the faults of a plan to a stage, and undoes them in time. Several may stand at once, also of the same kind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.chaos.plan import FOR_EVER, Fault
from tests.chaos.stage import HOSTS, USERS, Stage, uptime
from tests.chaos.troubles import Trouble

#: A fault that finds nobody waits for so long for somebody to do it to (seconds).
PATIENCE = 10.0


class Injector:
    """`troubles` tells the judge what was done to whom and for how long, `done` people what was done."""

    def __init__(self, stage: Stage, log: Callable[[str], None]) -> None:
        self.stage = stage
        self.log = log
        self.troubles: list[Trouble] = []
        self.done: Counter[str] = Counter()
        self.cut_off: set[str] = set()  # hosts, for ever
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._dead: list[tuple[Trouble, int]] = []  # who was killed, by his process, and has no successor yet
        self._killed: set[int] = set()
        self._looked = 0.0
        self._cuts: Counter[str] = Counter()
        self._offs: Counter[str] = Counter()
        self._fills: Counter[Path] = Counter()
        self._waits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, faults: tuple[Fault, ...]) -> None:
        """All of them, at their moments from now on; returns when each is undone that ever will be."""
        begin = time.monotonic()
        left = sorted(faults, key=lambda fault: fault.at)
        late: list[Fault] = []
        while left or late or self._undo:
            now = time.monotonic()
            for entry in sorted(self._undo, key=lambda entry: entry[0]):
                if entry[0] <= now:
                    self._undo.remove(entry)
                    entry[1]()
            while left and begin + left[0].at <= now:
                late.append(left.pop(0))
            late = [fault for fault in late if not self._inject(fault, is_last_chance=now >= begin + fault.at + PATIENCE)]
            self.look()
            self.stage.pause(0.05)

    def look(self) -> None:
        """Note who has come back. To be called now and then until everything is over."""
        now = time.monotonic()
        if now < self._looked + 0.5 or not self._dead:
            return
        self._looked = now
        table = self.stage.exec_table()
        for trouble, pid in list(self._dead):
            match trouble.what:
                case "server":
                    found = [self.stage.server_pid()]
                case "user-server":
                    found = [self.stage.user_server_pid(trouble.user)]
                case what:
                    found = list(table.get((trouble.host, trouble.user, "--work" if what == "worker" else "--supervise"), []))
            if any(each not in (None, pid) for each in found):
                trouble.end = uptime()
                self._dead.remove((trouble, pid))

    def join_for_good(self) -> None:
        """Plug in what was cut off for ever: what is heard from there now must change nothing."""
        for host in self.cut_off:
            self.stage.hosts.join(host)

    # --- one fault ----------------------------------------------------------------------------------------------------

    def _inject(self, fault: Fault, *, is_last_chance: bool) -> bool:
        """False if there was nobody to do it to, and there may be later."""
        done = self._do(fault)
        if not done and is_last_chance:  # then to somebody else of the kind
            others = [replace(fault, host=host, user=user) for host in HOSTS for user in USERS]
            fault, done = next(((other, True) for other in others if self._do(other)), (fault, False))
        if done or is_last_chance:
            self.log(f"{uptime():.2f} {fault.kind} {fault.host} {fault.user} for {fault.length:g} s{'' if done else ': nothing there'}")
            self.done[fault.kind if done else f"({fault.kind}: nothing there)"] += 1
        return done or is_last_chance

    def _do(self, fault: Fault) -> bool:
        what, _, where = fault.kind.removesuffix(" for a minute").partition(" ")
        match fault.kind:
            case "cut host" | "cut host for ever":
                return self._cut(fault)
            case "power off host" | "reboot host":
                return self._power_off(fault, is_wiped=fault.kind == "reboot host")
            case "fill spool":
                return self._fill(fault, "spool", self.stage.run_dir(fault.user))
            case "fill output":
                return self._fill(fault, "output", self.stage.home(fault.user))
            case "fill database":
                return self._fill(fault, "database", self.stage.database.directory / "data")
            case "reboot server's machine":
                return self._reboot_machine(fault)
            case "kill database":
                return self._kill_database(fault)
        pids = self._pids(where, fault)
        if what == "stop":
            return self._stop(where, pids, fault)
        if where == "server" and pids:
            self._keep_away("wants_server", fault.length)
        return bool([pid for name, pid in pids if self._kill(name, pid, fault)])

    def _pids(self, where: str, fault: Fault) -> list[tuple[str, int]]:
        """Who is meant, by what he is."""
        host, user = fault.host, fault.user
        match where:
            case "server":
                found = [("server", self.stage.server_pid())]
            case "user-server":
                found = [("user-server", self.stage.user_server_pid(user))]
            case "database":
                found = [("database", self.stage.database.pid)]
            case _:
                names = ("supervisor", "worker") if where == "both" else (where,)
                found = [(name, pid) for name in names for pid in self.stage.exec_pids(host, user, "--work" if name == "worker" else "--supervise")]
        return [(name, pid) for name, pid in found if pid is not None]

    def _trouble(self, what: str, fault: Fault | None = None, **more: bool) -> Trouble:
        is_of_host = what in ("worker", "supervisor", "host", "cut")
        is_of_user = what in ("worker", "supervisor", "user-server", "spool", "output")
        trouble = Trouble(what, uptime(), host=fault.host if fault and is_of_host else "", user=fault.user if fault and is_of_user else "", **more)
        self.troubles.append(trouble)
        return trouble

    def _kill(self, what: str, pid: int, fault: Fault) -> bool:
        # one that was killed a moment ago is still seen
        is_alone = what == "worker" and not set(self.stage.exec_pids(fault.host, fault.user, "--supervise")) - self._killed
        if not _signal(pid, signal.SIGKILL):
            return False
        self._killed.add(pid)
        self._dead.append((self._trouble(what, fault, is_death=True, is_last=is_alone), pid))
        return True

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds != FOR_EVER:
            self._undo.append((time.monotonic() + seconds, action))

    def _stop(self, what: str, pids: list[tuple[str, int]], fault: Fault) -> bool:
        stopped = [pid for _, pid in pids if _signal(pid, signal.SIGSTOP)]
        if not stopped:
            return False
        trouble = self._trouble(what, fault)

        def go_on() -> None:
            for pid in stopped:
                _signal(pid, signal.SIGCONT)
            trouble.end = uptime()

        self._later(fault.length, go_on)
        return True

    def _keep_away(self, wish: str, seconds: float) -> None:
        self._waits[wish] += 1
        setattr(self.stage, wish, False)

        def back() -> None:
            self._waits[wish] -= 1
            setattr(self.stage, wish, not self._waits[wish])

        self._later(seconds, back)

    def _kill_database(self, fault: Fault) -> bool:
        if self.stage.database.pid is None:
            return False
        self._keep_away("wants_database", fault.length)
        trouble = self._trouble("database", is_death=True)
        self._later(fault.length, lambda: setattr(trouble, "end", uptime()))
        self.stage.database.kill()
        return True

    def _reboot_machine(self, fault: Fault) -> bool:
        """hq-server, the user-servers and the database, in one moment; what is on their disks stays."""
        self._keep_away("wants_server", fault.length)
        self._keep_away("is_typing", fault.length)
        found = [("server", self.stage.server_pid(), ""), *(("user-server", self.stage.user_server_pid(user), user) for user in USERS)]
        done = [self._kill(what, pid, Fault(0.0, "", 0.0, "", user)) for what, pid, user in found if pid is not None]
        return self._kill_database(fault) or any(done)

    # --- hosts and disks ----------------------------------------------------------------------------------------------

    def _cut(self, fault: Fault) -> bool:
        trouble = self._trouble("cut", fault)
        self._cuts[fault.host] += 1
        self.stage.hosts.cut(fault.host)
        if fault.length == FOR_EVER:
            self.cut_off.add(fault.host)

        def join() -> None:
            self._cuts[fault.host] -= 1
            trouble.end = uptime()
            if not self._cuts[fault.host]:
                self.stage.hosts.join(fault.host)

        self._later(fault.length, join)
        return True

    def _power_off(self, fault: Fault, *, is_wiped: bool) -> bool:
        if self._offs[fault.host]:
            return False  # it is off
        trouble = self._trouble("host", fault, is_death=True, is_wiped=is_wiped)
        self._offs[fault.host] += 1
        if not self._cuts[fault.host]:
            self.stage.hosts.cut(fault.host)  # nobody hears of it
        self.stage.hosts.kill(fault.host)
        if not self._cuts[fault.host]:
            self.stage.hosts.join(fault.host)
        if is_wiped:
            for user in USERS:
                shutil.rmtree(self.stage.run_dir(user) / f"exec-{fault.host}", ignore_errors=True)

        def power_on() -> None:
            self._offs[fault.host] -= 1
            self.stage.hosts.start(fault.host)
            trouble.end = uptime()

        self._later(fault.length, power_on)
        return True

    def _fill(self, fault: Fault, what: str, folder: Path) -> bool:
        """Not a byte is free on this file system. (The users' run directories are those of all machines.)"""
        trouble = self._trouble(what, fault)
        self._fills[folder] += 1
        place = folder / "fill"
        _fill_up(place)

        def free() -> None:
            self._fills[folder] -= 1
            trouble.end = uptime()
            if not self._fills[folder]:
                place.unlink(missing_ok=True)

        self._later(fault.length, free)
        return True


def _signal(pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


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


