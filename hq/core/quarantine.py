"""Hosts where everything fails: put aside by themselves, tried by one task after a while, opened again when that one is well.

The verdict over a host needs jobs of many submissions of at least two users that fail there at once, and do not fail elsewhere: what
fails everywhere is the job's fault, and where everything fails everywhere it is no host's. So a cluster of one host has no quarantine. The jobs of
one submission count once, as the tasks of an array do: they are of one kind, and if one is wrong, so are all.

Verdicts, and how often a task took its exec-server or host down, are kept as settings of the instance, so that a restart of hq-server acquits nobody.
The evidence is not: it is of the last minutes, and a host that is ill gives new one.
"""

from __future__ import annotations

import json
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from hq.model.ids import TaskKey
from hq.model.states import Outcome

if TYPE_CHECKING:
    from hq.core.state import State
    from hq.model.job import TaskRecord

#: How far back ends are looked at (seconds), and how many of a host.
WINDOW = 300.0
MAX_ENDS = 200
#: So many submissions, of so many users, must fail on a host, and at most so many others be well there for each that fails.
JOBS = 5
USERS = 2
SHARE = 0.25
#: With so many other hosts it is compared.
COMPARED = 50
#: How long a host is put aside at first, and at most (seconds). It doubles with each task that fails in trying it.
COOL_DOWN = 600.0
LONGEST = 4 * 3600.0


_VERDICTS, _CRASHES = "quarantine", "crashes"


class Crashes(dict[TaskKey, int]):
    """How often its exec-server or host was lost under a task."""

    is_changed = False

    def __setitem__(self, key: TaskKey, count: int) -> None:
        super().__setitem__(key, count)
        self.is_changed = True

    def pop(self, key: TaskKey, *default: Any) -> Any:
        """As of any dict."""
        self.is_changed = self.is_changed or key in self
        return super().pop(key, *default)


class End(NamedTuple):
    """A task that ended by itself on a host."""

    at: float
    user: str
    submission: str
    is_well: bool


class Health:
    """The latest ends by host, and the hosts that are put aside: until when, and for how long that was."""

    def __init__(self) -> None:
        self.aside: dict[str, tuple[float, float]] = {}
        self.is_changed = False
        self._ends: dict[str, deque[End]] = {}

    def note_end(self, state: State, task: TaskRecord, outcome: Outcome) -> None:
        """A task ended on a host by itself: judge."""
        host = state.hosts.get(task.host)
        if host is None or outcome not in (Outcome.OK, Outcome.FAILED):
            return
        is_well = outcome is Outcome.OK
        if host.canary == task.key:
            if is_well:
                self.open(state, host.name, "the task that tried it was well")
            else:
                _, pause = self.aside[host.name]
                self._put_aside(state, host.name, min(LONGEST, 2 * pause), host.quarantine or "")
            return
        ends = self._ends.setdefault(host.name, deque(maxlen=MAX_ENDS))
        ends.append(End(state.now, task.user, _submission(state.jobs[task.job].record.spec.key), is_well))
        if not is_well and host.quarantine is None and (reason := self._accusation(host.name, state.now)):
            self._put_aside(state, host.name, COOL_DOWN, reason)

    def open(self, state: State, name: str, why: str, actor: str = "hq-server") -> None:
        """A host is as any other again."""
        host = state.hosts[name]
        if host.quarantine is None:
            return
        host.quarantine, host.canary, host.is_on_trial = None, None, False
        self.is_changed = self.aside.pop(name, None) is not None or self.is_changed
        self._ends.pop(name, None)
        state.audit(actor, "quarantine ends", "", name, why)
        state.note_room(host)
        state.is_dirty = True

    def let_time_pass(self, state: State) -> None:
        """Hosts whose time is over may be tried by one task."""
        for name, (until, _) in list(self.aside.items()):
            host = state.hosts.get(name)
            if host is None:
                del self.aside[name]
                self.is_changed = True
            elif until <= state.now and not host.is_on_trial:
                host.is_on_trial = True
                state.note_room(host)
                state.is_dirty = True

    def wakes(self, state: State) -> list[float]:
        """When there is something to do (Unix time)."""
        return [until for until, _ in self.aside.values() if until > state.now]

    def _put_aside(self, state: State, name: str, pause: float, reason: str) -> None:
        host = state.hosts[name]
        host.quarantine, host.canary, host.is_on_trial = reason, None, False
        self.aside[name] = (state.now + pause, pause)
        self.is_changed = True
        state.audit("hq-server", "quarantine", "", name, f"for {pause:.0f} s: {reason}")
        state.note_room(host)
        state.is_dirty = True

    def _accusation(self, name: str, now: float) -> str:
        """Why the host is put aside; empty if nothing speaks for its guilt."""
        here = self._recent(name, now)
        failed = {(end.user, end.submission) for end in here if not end.is_well}
        well = {(end.user, end.submission) for end in here if end.is_well}
        if not _is_much(failed, well):
            return ""
        failed_elsewhere: set[tuple[str, str]] = set()
        count_well = count_failed = 0
        for other in islice((each for each in reversed(self._ends) if each != name), COMPARED):
            for end in self._recent(other, now):
                if end.is_well:
                    count_well += 1
                else:
                    count_failed += 1
                    failed_elsewhere.add((end.user, end.submission))
        if not count_well or count_failed > count_well:
            return ""  # nothing to compare with, or it is the same everywhere
        blamed = failed - failed_elsewhere
        if not _is_much(blamed, well):
            return ""
        users = len({user for user, _ in blamed})
        return f"{len(blamed)} submissions of {users} users failed there within {WINDOW / 60:.0f} min, and do not elsewhere"

    def _recent(self, name: str, now: float) -> deque[End]:
        ends = self._ends[name]
        while ends and ends[0].at < now - WINDOW:
            ends.popleft()
        return ends


def keep(state: State) -> None:
    """Write down what changed in this step."""
    if state.health.is_changed:
        state.health.is_changed = False
        told = {name: [*times, state.hosts[name].quarantine] for name, times in state.health.aside.items() if name in state.hosts}
        state.changes.settings[_VERDICTS] = json.dumps(told) if told else ""
    if state.crashes.is_changed:
        state.crashes.is_changed = False
        state.changes.settings[_CRASHES] = json.dumps([[*key, count] for key, count in state.crashes.items()]) if state.crashes else ""


def restore(state: State, settings: dict[str, str]) -> None:
    """Read it back. A host that was just being tried is tried again."""
    for name, (until, pause, reason) in json.loads(settings.get(_VERDICTS) or "{}").items():
        if name in state.hosts:
            state.hosts[name].quarantine = reason
            state.health.aside[name] = (until, pause)
            state.note_room(state.hosts[name])
    for job, index, count in json.loads(settings.get(_CRASHES) or "[]"):
        if job in state.jobs:
            state.crashes[TaskKey(job, index)] = count
    state.crashes.is_changed = False


def _submission(key: str) -> str:
    """Keys of one submission are `KEY-0`, `KEY-1`, …"""
    base, dash, number = key.rpartition("-")
    return base if dash and number.isdigit() else key


def _is_much(failed: set[tuple[str, str]], well: set[tuple[str, str]]) -> bool:
    """Whether so much of so many users failed that a host is to blame."""
    return len(failed) >= JOBS and len({user for user, _ in failed}) >= USERS and len(well) <= SHARE * len(failed)
