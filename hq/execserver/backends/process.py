"""The backend of ordinary hosts: a run is a process of this machine, in a session of its own.

A run's processes are those of its session and group, its descendants (orphans come to us: worker and supervisor are child
subreapers), and whoever carries its tag in the environment. Linux only. Not the place for limits: it measures and signals.
"""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass, field

from hq.execserver.backends.base import (
    Ended,
    Launch,
    NoteStatus,
    NotStarted,
    Seen,
    Started,
)  # fmt: skip
from hq.execserver.backends.cgroup import CgroupManager
from hq.execserver.backends.procs import Children, Proc, memory_of, own_processes, read_proc, send, tag_of, ticks_now
from hq.execserver.backends.spawn import DEFAULT_PATH, cannot, find_command, open_streams, shown, spawn, spawn_failure
from hq.execserver.backends.statuses import StatusReader
from hq.model.ids import AttemptKey

LEFTOVER_POLL = 0.1  # seconds between looks at leftovers that have the rest of a grace
STATUS_GRACE = 3.0  # seconds that the supervisor has to write down the status of a run that is gone
MAX_TAGS = 100_000

@dataclass(slots=True)
class _Live:
    key: AttemptKey
    tag: str
    pid: int
    starttime: int
    is_child: bool
    is_ending: bool = False
    is_lingering: bool = False
    since: int | None = None
    gone_since: float | None = None
    peak: int = 0
    cpu: float = 0.0  # of all its processes, as far as it was seen: who is killed is waited for by nobody who counts
    born: float = 0.0  # the moment of the `reap` in which it was started, or before
    members: set[tuple[int, int]] = field(default_factory=set)  # (pid, starttime) ever seen as its own


class ProcessBackend:
    """Runs as processes of this machine. See `base.Backend` for the calls."""

    def __init__(self, note_status: NoteStatus, statuses: StatusReader | None = None, cgroups: CgroupManager | None = None) -> None:
        self._note = note_status
        self._statuses = statuses
        self._cgroups = cgroups
        self._live: dict[AttemptKey, _Live] = {}
        self._by_pid: dict[int, _Live] = {}
        self._tags: dict[str, AttemptKey] = {}  # of live and past runs
        self._tag_of: dict[tuple[int, int], str] = {}  # cache: what a process has in its environment
        self._owner: dict[tuple[int, int], AttemptKey] = {}  # whose a process was at the last look
        self._uid = os.geteuid()
        self._adopted: set[tuple[int, int]] = set()  # pid, and a moment until which it had begun
        self._next_linger = 0.0
        self._own_peak = 0
        self._children = Children()
        self._moment = 0.0
        self._taken: list[tuple[_Live, int | None, int | None, resource.struct_rusage, float]] = []

    # --- start ------------------------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> Started | NotStarted:
        """As Backend.start. Exit codes of failures: 127 no such command, 126 not executable, 125 anything before that."""
        files: list[int] = []
        umask = os.umask(launch.umask)
        try:
            try:
                os.chdir(launch.cwd)
            except OSError as error:
                return cannot(f"the working directory {shown(launch.cwd)}", error, "cannot be entered on this host")
            opened = open_streams(launch, files)
            if isinstance(opened, NotStarted):
                return opened
            name = launch.argv[0]
            # what is named by its path is looked at only if it cannot be executed
            found = name if b"/" in name else find_command(name, launch.env.get(b"PATH", DEFAULT_PATH))
            if isinstance(found, NotStarted):
                return found
            try:
                pid = spawn(found, launch, opened.actions)
            except OSError as error:
                why = find_command(name, b"") if found is name else found
                return why if isinstance(why, NotStarted) else spawn_failure(error, found)
            # who has this pid and began by now can be nobody else: /proc need not be asked, which costs more than the process's own files
            starttime = ticks_now()
            live = _Live(launch.key, launch.tag, pid, starttime, True, born=self._moment)
            self._keep(live)
            if launch.nice:
                _renice(pid, launch.nice)
            if self._cgroups is not None:
                self._cgroups.enter(launch.tag, pid, launch.memory)
            return Started(pid, starttime, opened.outputs)
        finally:
            os.umask(umask)
            os.chdir("/")
            for fd in files:
                os.close(fd)

    def _keep(self, live: _Live) -> None:
        self._live[live.key] = live
        self._by_pid[live.pid] = live
        if not live.is_child:
            self._adopted.add((live.pid, live.starttime))
        self._tags[live.tag] = live.key
        while len(self._tags) > MAX_TAGS:
            del self._tags[next(iter(self._tags))]

    def adopt(self, key: AttemptKey, tag: str, pid: int, starttime: int, since: int | None = None) -> None:
        """As Backend.adopt. With pid 0 (the worker died while it made the process) it is looked for by its tag."""
        if pid == 0:
            candidates = [proc for proc in own_processes(self._uid).values() if proc.is_alive and tag_of(proc.pid) == tag]
            leader = next((proc for proc in candidates if proc.session == proc.pid), None)
            if leader is not None:
                pid, starttime = leader.pid, leader.starttime
        self._keep(_Live(key, tag, pid, starttime, False, since=since))

    def find(self, key: AttemptKey) -> tuple[int, int] | None:
        """Pid and start time of a live run."""
        live = self._live.get(key)
        return (live.pid, live.starttime) if live is not None and live.pid else None

    # --- end --------------------------------------------------------------------------------------------------------

    def reap(self, wall: float) -> None:
        """Take what has ended from the system, no more: `poll` tells what that means. Whoever notes a status may start another run in its place.

        `wall`: this moment, Unix time. To be called before `poll`.
        """
        self._moment = wall
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            live = self._by_pid.get(info.si_pid)
            if live is not None and live.born == wall:
                break  # it followed another a moment ago, and its own end has a moment of its own
            if live is None or not live.is_child:
                os.waitpid(info.si_pid, os.WNOHANG)  # an orphan of a run that came to us
                continue
            code, number = (info.si_status, None) if info.si_code == os.CLD_EXITED else (None, info.si_status)
            # written down before the kernel forgets it: a KILL of this process in between loses nothing
            self._note(live.key, code, number)
            if not live.is_ending:
                # the zombie still holds the number of the group, so that it cannot be another's
                _kill_group(live.pid)
            _, _, usage = os.wait4(live.pid, 0)
            del self._by_pid[live.pid]
            self._taken.append((live, code, number, usage, wall))

    def poll(self, boot: float) -> tuple[list[Ended], list[AttemptKey]]:
        """As Backend.poll."""
        ended: list[Ended] = []
        taken, self._taken = self._taken, []
        has_orphans = bool(taken) and self._has_orphans()
        for live, code, number, usage, at in taken:
            max_rss, cpu = usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime
            ended.append(self._end(live, code, number, max_rss, cpu, at=at, has_orphans=has_orphans))
        if any(not live.is_child and not live.is_lingering for live in self._live.values()):
            ended.extend(self._poll_adopted(boot))
        return ended, self._poll_leftovers(boot)

    def _end(
        self, live: _Live, code: int | None, number: int | None, max_rss: int | None, cpu: float | None, reason: str = "",
        at: float | None = None, has_orphans: bool = True,
    ) -> Ended:  # fmt: skip
        self._by_pid.pop(live.pid, None)
        usage = self._cgroups.leave(live.tag) if self._cgroups is not None else None
        rest: list[Proc] = []
        # the cheap test: with no orphan among our children, and the group killed, there is nothing to look for
        if live.is_ending or has_orphans:
            rest = self._members(live.key)
            cpu = None if cpu is None else cpu + sum(proc.cpu for proc in rest)
            if not live.is_ending:
                _kill_all(rest)
                rest = []
        if max_rss is not None and live.peak and max_rss <= self._ceiling():
            # until exec(2) a spawned process counts our own memory as its own, so this says nothing
            max_rss = live.peak
        if usage is not None and usage.peak:
            max_rss = usage.peak
        if rest:
            live.is_lingering = True
        else:
            del self._live[live.key]
        return Ended(key=live.key, exit_code=code, signal=number, max_rss=max_rss, cpu=max(cpu or 0.0, live.cpu) or cpu, reason=reason, at=at,
                     has_leftovers=bool(rest), is_memory=bool(usage and usage.oom_kills and number == signal.SIGKILL))  # fmt: skip

    def _ceiling(self) -> int:
        self._own_peak = max(self._own_peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return self._own_peak

    def _has_orphans(self) -> bool:
        children = self._children.read()
        return children is None or any(pid not in self._by_pid for pid in children)

    def _poll_adopted(self, boot: float) -> list[Ended]:
        """Runs of an earlier worker are the supervisor's children: it writes their statuses down."""
        ended: list[Ended] = []
        supervisor = os.getppid()
        if self._statuses is not None:
            self._statuses.read()
        for live in [each for each in self._live.values() if not each.is_child and not each.is_lingering]:
            status = self._statuses.find(live.pid, live.starttime) if self._statuses is not None else None
            if status is not None:
                self._note(live.key, status.exit_code, status.signal)
                ended.append(self._end(live, status.exit_code, status.signal, status.max_rss, status.cpu))
                continue
            proc = read_proc(live.pid) if live.pid else None
            if proc is not None and proc.starttime <= live.starttime and (proc.is_alive or proc.ppid == supervisor):
                live.gone_since = None  # dead, and not yet waited for: its parent will say how it ended
            elif live.gone_since is None:
                live.gone_since = boot
            elif boot - live.gone_since < STATUS_GRACE:
                continue
            elif not live.pid and live.since is not None and not self._is_unclaimed(live.since):
                del self._live[live.key]
                self._by_pid.pop(0, None)
                ended.append(Ended(key=live.key, is_never=True, reason="the exec-server died before its process was made"))
            else:
                why = (
                    "it ended while no part of the exec-server ran: nobody saw how" if live.pid
                    else "the exec-server died at the very moment of its start: whether it ran is not known"
                )  # fmt: skip
                ended.append(self._end(live, None, None, None, None, why))
        return ended

    def _is_unclaimed(self, since: int) -> bool:
        """Whether a process ended that was made since this moment, and of which we do not know whose it was."""
        lines = self._statuses.read() if self._statuses is not None else {}
        return any(
            begun >= since and not any(pid == other and begun <= until for other, until in self._adopted) for pid, begun in lines
        )

    def _poll_leftovers(self, boot: float) -> list[AttemptKey]:
        lingering = [live for live in self._live.values() if live.is_lingering]
        if not lingering or boot < self._next_linger:
            return []
        self._next_linger = boot + LEFTOVER_POLL
        owners = self._owners()
        gone = [live.key for live in lingering if not owners.get(live.key)]
        for key in gone:
            del self._live[key]
        return gone

    @property
    def is_watching_leftovers(self) -> bool:
        """Whether `poll` should be called again after LEFTOVER_POLL seconds."""
        return any(live.is_lingering or not live.is_child for live in self._live.values())

    def forget(self, key: AttemptKey) -> None:
        """As Backend.forget: whatever is left of the run is killed."""
        live = self._live.pop(key, None)
        if live is not None:
            self._by_pid.pop(live.pid, None)
            _kill_all(self._members(key))

    # --- whose process ----------------------------------------------------------------------------------------------

    def signal(self, key: AttemptKey, number: int, is_ending: bool) -> None:
        """As Backend.signal."""
        live = self._live.get(key)
        if live is None:
            return
        live.is_ending = live.is_ending or is_ending
        if number == signal.SIGKILL:
            if self._cgroups is not None:
                self._cgroups.kill(live.tag)
            # again while it finds somebody: who is forking may outrun one pass
            for _ in range(5):
                if not _kill_all(self._members(key)):
                    break
            return
        members = self._members(key)
        for proc in members:
            send(proc, number)
        if is_ending:
            for proc in members:
                send(proc, signal.SIGCONT)

    def _members(self, key: AttemptKey) -> list[Proc]:
        procs = self._owners().get(key, [])
        if live := self._live.get(key):
            live.cpu = max(live.cpu, sum(proc.cpu for proc in procs))
        return procs

    def _owners(self) -> dict[AttemptKey, list[Proc]]:
        """Every living process of every run, live or past."""
        table = own_processes(self._uid)
        sessions = {live.pid: live.key for live in self._live.values() if live.pid}
        owner: dict[int, AttemptKey | None] = {}
        before, tags = self._owner, self._tag_of
        now_owner: dict[tuple[int, int], AttemptKey] = {}
        now_tags: dict[tuple[int, int], str] = {}
        stop = {os.getpid(), os.getppid(), 0, 1}

        def find(proc: Proc) -> AttemptKey | None:
            if proc.pid in owner:
                return owner[proc.pid]
            owner[proc.pid] = None  # against a ring of parents, which only a table read over time can have
            name = (proc.pid, proc.starttime)
            key = sessions.get(proc.session) or sessions.get(proc.group) or before.get(name)
            if key is None and proc.ppid not in stop and proc.ppid in table:
                key = find(table[proc.ppid])
            if key is None and proc.pid not in stop:
                tag = tags.get(name)
                if tag is None:
                    tag = tag_of(proc.pid)
                now_tags[name] = tag
                key = self._tags.get(tag) if tag else None
            owner[proc.pid] = key
            if key is not None:
                now_owner[name] = key
            return key

        found: dict[AttemptKey, list[Proc]] = {}
        for proc in table.values():
            key = find(proc)
            if key is not None and proc.is_alive and proc.pid not in stop:
                found.setdefault(key, []).append(proc)
        self._owner, self._tag_of = now_owner, now_tags
        return found

    def look(self) -> list[Seen]:
        """As Backend.look."""
        if not self._live:
            # all children we still have are leftovers; with nobody else alive there is no doubt whose
            if not self._children.read():
                return []
        seen: list[Seen] = []
        for key, procs in self._owners().items():
            live = self._live.get(key)
            if live is None:
                _kill_all(procs)
                continue
            memory = memory_of(procs) if len(procs) == 1 or sum(proc.rss for proc in procs) > live.peak else 0
            if self._cgroups is not None:
                memory = max(memory, self._cgroups.current(live.tag))
            live.peak = max(live.peak, memory)
            live.cpu = max(live.cpu, sum(proc.cpu for proc in procs))
            seen.append(Seen(key, memory))
        return seen


def _renice(pid: int, nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PGRP, pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
    except OSError:
        pass  # it has ended already


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _kill_all(procs: list[Proc]) -> int:
    return sum(send(proc, signal.SIGKILL) for proc in procs)
