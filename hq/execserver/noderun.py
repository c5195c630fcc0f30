"""hq's runner on a compute node: runs one attempt exactly as an ordinary host would, inside a job of a batch system.

    noderun DIRECTORY INDEX

It is the core and the backend of an exec-server without its links: the same limits, signals and outcomes; how it ended goes to
INDEX.exit. TERM (the batch system ends the job, or hq does) is TERM, grace, KILL for the run. Standard library only.
Signals that cannot be caught, or mean something else here, come under other numbers: see `TRANSLATED`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from hq.core.runner import Runner
from hq.core.runner_events import (
    Event,
    LeftoversGone,
    MemorySeen,
    Ordered,
    RunEnded,
    RunStarted,
    SignalAsked,
    SignalRun,
    Spawn,
    StartFailed,
    StopAsked,
)
from hq.execserver.backends.base import Launch, NotStarted, Started
from hq.execserver.backends.process import LEFTOVER_POLL, ProcessBackend
from hq.execserver.batchfiles import read_launch
from hq.kernel.clock import Now, SystemClock
from hq.kernel.files import read_secret
from hq.model.job import JobSpec, exit_code_of
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind

#: What hq sends instead of signals that the runner could not pass on.
TRANSLATED = {signal.SIGSTOP: 36, signal.SIGKILL: 37, signal.SIGTERM: 38}
_BACK = {number: meant for meant, number in TRANSLATED.items()}
_PASSED_ON = frozenset({1, 2, 3, 10, 12, 14, 18, 20, 21, 22, 28, *_BACK})
_SET = _PASSED_ON | {signal.SIGTERM, signal.SIGCHLD}
LOOK_EVERY = 1.0
FIRST_LOOK = 0.2
FELLED_WITHIN = 1.0  # seconds in which a TERM for us explains one for the run
#: Names of variables of batch systems: the submitter's own say nothing about this job.
NATIVE = ("SLURM", "PBS_", "PMI", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "TMPDIR", "NCPUS", "OMP_NUM_THREADS")
#: The exit status of a runner that found that the attempt has begun before.
ALREADY = 75
#: How often, and with what pauses in seconds, it is tried to write down how the attempt ended.
WRITE_TRIES = 10
WRITE_PAUSE = 0.5
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str] | None = None) -> int:
    """Run the attempt. Returns what the batch system gets to see as its exit status."""
    directory, text = (sys.argv[1:] if argv is None else argv)[:2]
    index = int(text)
    if not os.path.isdir(directory):
        return 0  # hq has no use for it any more
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SET)
    path = os.path.join(directory, str(index))
    mark = {"native": native_id(), "node": os.uname().nodename, "pid": os.getpid(), "at": time.time()}
    if not _mark(path + ".start", mark):
        _say(f"element {index} has begun before, and is not run twice")
        return ALREADY
    if not os.path.lexists(path + ".spec"):
        return 0  # cancelled before it began
    launch = read_launch(json.loads(read_secret(path + ".spec")))
    report, told = NodeRun(_with_native(launch)).run()
    words = {
        "outcome": report.outcome.value if report.outcome else Outcome.LOST.value, "exit_code": report.exit_code, "signal": report.signal,
        "max_rss": report.max_rss, "cpu": report.cpu, "reason": report.reason, "started": report.started, "at": report.at, "pid": report.pid,
        "told": told, "killed": is_killed(report), **{name: mark[name] for name in ("native", "node")},
    }  # fmt: skip
    for _ in range(WRITE_TRIES):
        try:
            _write_exit(path + ".exit", words)
            break
        except OSError as error:  # a full disk, or a file server that is away: the batch system gets to know how it ended in any case
            _say(f"how element {index} ended cannot be written down: {error}")
            time.sleep(WRITE_PAUSE)
    return exit_code_of(report.outcome or Outcome.LOST, report.exit_code, report.signal)


def is_killed(report: RunReport) -> bool:
    """Whether somebody who is not hq killed the run, or a process of it: the kernel, for memory, would look like that."""
    return report.outcome is Outcome.FAILED and (report.signal == signal.SIGKILL or report.exit_code == 128 + signal.SIGKILL)


def native_id() -> str:
    """Under which id this job stands in listings; an element of a Slurm array has another one besides."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return next((os.environ[name] for name in ("SLURM_JOB_ID", "PBS_JOBID") if name in os.environ), "")


class NodeRun:
    """One attempt from its start to its last report."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._backend = ProcessBackend(lambda key, code, number: None)
        self._runner = Runner(launch.slots)
        self._told = False
        self._last: RunReport | None = None

    def run(self) -> tuple[RunReport, bool]:
        """The last report, and whether it was ended by a TERM from outside."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        launch, clock = self._launch, SystemClock()
        key = launch.key
        spec = JobSpec(
            instance="", user="", key="", name=launch.name, argv=launch.argv, slots=launch.slots, memory=launch.memory, time_limit=launch.time_limit,
            grace=launch.grace,
        )  # fmt: skip
        events: list[Event] = [Ordered(StartOrder(*key, tuple(range(launch.slots))), spec)]
        next_look = clock.now().boot + FIRST_LOOK
        while True:
            now = clock.now()
            events += self._poll(now)
            if now.boot >= next_look:
                next_look = now.boot + LOOK_EVERY
                events += [MemorySeen(seen.key, seen.memory) for seen in self._backend.look() if seen.memory]
            wake = self._step(events, now)
            if self._last is not None:
                return self._last, self._told or self._was_felled(self._last)
            until = min(each for each in (wake, next_look, now.boot + LEFTOVER_POLL if self._backend.is_watching_leftovers else None) if each is not None)
            got = signal.sigtimedwait(_SET, max(0.0, until - clock.now().boot))
            events = self._heard(got.si_signo) if got is not None else []

    def _was_felled(self, report: RunReport) -> bool:
        """Whether the end may be the batch system's doing: it signals all processes, and the run's may have died of it before us."""
        is_like_it = report.signal in (signal.SIGTERM, signal.SIGKILL) or report.exit_code in (143, 137)
        return is_like_it and signal.sigtimedwait({signal.SIGTERM}, FELLED_WITHIN) is not None

    def _heard(self, number: int) -> list[Event]:
        if number == signal.SIGTERM:
            self._told = True
            return [StopAsked(self._launch.key, Outcome.CANCELLED, "the batch system ended it")]
        return [SignalAsked(self._launch.key, _BACK.get(number, number))] if number in _PASSED_ON else []

    def _poll(self, now: Now) -> list[Event]:
        self._backend.reap(now.wall)
        ended, gone = self._backend.poll(now.boot)
        events: list[Event] = [
            RunEnded(key=each.key, at=now.wall, exit_code=each.exit_code, signal=each.signal, max_rss=each.max_rss, cpu=each.cpu,
                     reason=each.reason, has_leftovers=each.has_leftovers, is_memory=each.is_memory)
            for each in ended
        ]  # fmt: skip
        return [*events, *map(LeftoversGone, gone)]

    def _step(self, events: list[Event], now: Now) -> float | None:
        while True:
            step = self._runner.step(events, now)
            events = []
            for report in step.reports:
                if report.kind in (RunKind.ENDED, RunKind.NEVER_STARTED):
                    self._last = report
            for action in step.actions:
                if isinstance(action, Spawn):
                    events.append(self._spawn(now))
                elif isinstance(action, SignalRun):
                    self._backend.signal(action.key, action.signal, action.is_ending)
            if not events:
                return step.wake

    def _spawn(self, now: Now) -> Event:
        made = self._backend.start(self._launch)
        if isinstance(made, NotStarted):
            return StartFailed(self._launch.key, made.reason, now.wall, made.exit_code)
        assert isinstance(made, Started)
        return RunStarted(self._launch.key, made.pid, now.wall)


def _with_native(launch: Launch) -> Launch:
    """The launch with what the batch system says to its jobs, instead of what it said to the submitter's shell."""
    env = {name: value for name, value in launch.env.items() if not os.fsdecode(name).startswith(NATIVE)}
    env.update((name, value) for name, value in os.environb.items() if os.fsdecode(name).startswith(NATIVE))
    launch.env.clear()
    launch.env.update(env)
    return launch


def _mark(path: str, words: dict[str, Any]) -> bool:
    """Make the file whole and once: link(2) is one step on network file systems, too. False: it is there already."""
    temporary = f"{path}.{os.uname().nodename}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(words, file)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def _say(text: str) -> None:
    """A line for the batch system's own output. Not by sys.stderr: what that cannot write changes the exit status of a Python."""
    with contextlib.suppress(OSError):
        os.write(2, f"hq: {text}\n".encode(errors="replace"))


def _write_exit(path: str, words: dict[str, Any]) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(words, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if __name__ == "__main__":
    raise SystemExit(main())
