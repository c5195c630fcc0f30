"""The supervisor: keeps a worker alive and loses no exit status when it dies. It speaks to nobody and decides nothing else.

Runs whose worker died become its children (it is a child subreaper); it waits for them and writes their statuses down.
Standard library only: what it does not import cannot break it. Signals: HUP goes to the worker (and starts one if it had
ended in good order), TERM ends the worker; then the supervisor stays until the last run has ended, and ends too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time

from hq.execserver.backends.procs import read_proc
from hq.execserver.backends.statuses import status_line
from hq.execserver.program import Program, load_program

_PR_SET_CHILD_SUBREAPER = 36
_PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before a worker that keeps dying is started again
ROOM_POLL = 0.5  # seconds between looks whether there is room again
_LONG_LIFE = 60.0  # seconds after which a death counts as the first again

#: What a worker returns when it has ended in good order and is not to be started again.
GOOD_END = 0
#: What it returns when the program that was named last is to take its place.
SWAP = 75


def become_subreaper() -> None:
    """Orphaned descendants become our children instead of init's. Raises OSError where the kernel cannot (before 3.4)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Supervisor:
    """One supervisor of one run directory. Its worker is started, and again when it dies: of the program that the directory names, else `own`."""

    def __init__(self, run_dir: str, own: Program, environment: dict[str, str]) -> None:
        self._run_dir = run_dir
        self._statuses = os.path.join(run_dir, "statuses")
        self._own = own
        self._environment = environment
        self._worker: int | None = None
        self._born = 0.0
        self._deaths = 0
        self._start_at: float | None = 0.0  # when to start a worker; None: not wanted
        self._unwritten = b""  # statuses for which there was no room
        self._is_full = False

    def run(self, ready_fd: int | None = None) -> int:
        """Supervise until there is neither a worker nor a run. `ready_fd` is handed to the first worker. Returns the exit code."""
        signals = {signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        # a supervisor that inherited "ignore" would have its children reaped by the kernel
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while True:
            now = time.monotonic()
            if self._worker is None and self._start_at is not None and now >= self._start_at:
                self._start(ready_fd)
                if ready_fd is not None:
                    os.close(ready_fd)
                    ready_fd = None
            has_children = self._reap()
            if self._worker is None and self._start_at is None and not has_children and not self._unwritten:
                return 0
            wait = 30.0 if self._start_at is None or self._worker is not None else max(0.0, self._start_at - time.monotonic())
            got = signal.sigtimedwait(signals, min(wait, ROOM_POLL) if self._is_full else wait)
            if got is None:
                continue
            if got.si_signo == signal.SIGHUP:
                if self._worker is not None:
                    self._tell(signal.SIGHUP)
                else:
                    self._start_at, self._deaths = 0.0, 0
            elif got.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._start_at = None
                if self._worker is not None:
                    self._tell(signal.SIGTERM)

    def _start(self, ready_fd: int | None) -> None:
        words = ["--work", self._run_dir, *(["--ready-fd", str(ready_fd)] if ready_fd is not None else [])]
        # a new program that does not live must not keep the old one from its runs
        program = (load_program(self._run_dir) if self._deaths % 2 == 0 else None) or self._own
        self._born = time.monotonic()
        try:
            self._worker = os.posix_spawn(
                program.python, program.argv(*words), program.environment(self._environment), setsigmask=(),
                setsigdef=[signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE],
            )  # fmt: skip
        except OSError as error:
            print(f"the worker cannot be started: {program.python}: {error}", file=sys.stderr, flush=True)
            self._worker_died(None)

    def _tell(self, number: int) -> None:
        if self._worker is not None:
            try:
                os.kill(self._worker, number)
            except ProcessLookupError:
                pass

    def _reap(self) -> bool:
        """Take every status that there is room to write down; whether children are left. Who is not waited for keeps his."""
        taken = self._write()
        self._is_full = bool(self._unwritten)
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                has_children = False
                break
            if info is not None and info.si_pid != self._worker and not self._has_room():
                # this one waits, and whoever adopted it sees that; a worker that died must not wait behind it
                info = os.waitid(os.P_PID, self._worker, os.WEXITED | os.WNOHANG | os.WNOWAIT) if self._worker is not None else None
            if info is None:
                has_children = True
                break
            pid = info.si_pid
            if pid == self._worker:
                os.waitpid(pid, 0)
                self._worker_died(info.si_status if info.si_code == os.CLD_EXITED else None)
                continue
            proc = read_proc(pid)
            _, status, usage = os.wait4(pid, os.WNOHANG)
            if proc is not None:
                line = status_line(pid, proc.starttime, status, usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
                self._append(line)
                taken = True
        if taken:
            self._tell(signal.SIGCHLD)
        return has_children

    def _has_room(self) -> bool:
        try:
            self._is_full |= os.statvfs(os.path.dirname(self._statuses)).f_bavail == 0
        except OSError:
            pass  # writing will tell
        return not self._is_full

    def _append(self, line: bytes) -> None:
        self._unwritten += line
        self._write()

    def _write(self) -> bool:
        """Write what there is to write; whether there was anything, and some of it is written now."""
        if not self._unwritten:
            return False
        before = len(self._unwritten)
        try:
            fd = os.open(self._statuses, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._unwritten = self._unwritten[os.write(fd, self._unwritten) :]
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                print(f"a status is lost: {self._statuses}: {error}", file=sys.stderr, flush=True)
                self._unwritten = b""
                return False
        self._is_full |= bool(self._unwritten)
        return len(self._unwritten) < before

    def _worker_died(self, code: int | None) -> None:
        """`code`: what it returned, None if it was killed."""
        self._worker = None
        if code == GOOD_END:
            self._start_at = None
            return
        if self._start_at is None:
            return  # it was told to end
        if code == SWAP or time.monotonic() - self._born > _LONG_LIFE:
            self._deaths = 0
        self._start_at = time.monotonic() + _PAUSES[min(self._deaths, len(_PAUSES) - 1)]
        if code != SWAP:
            self._deaths += 1
