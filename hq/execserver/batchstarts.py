"""How an attempt at a batch system began, from the mark that its runner made: as which native job, and when by our own clock.

A submission that was accepted twice (its answer came too late, and it was not listed yet) is two native jobs. Whichever begins first makes
the mark, the other does nothing; so it is the mark that says which of them is the attempt's. Clocks of nodes are compared with nothing: the
moment is that at which the shared file system got the mark, moved to our clock, and how long a run took is its node's word.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hq.execserver.backends.base import Begun
from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.batchfiles import Group, read_words
from hq.execserver.batchmembers import Member
from hq.model.quantities import format_seconds

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Start:
    """`id`: of the native job that runs it. `at`: Unix time by our clock. `skew`: our clock minus the node's."""

    id: str
    pid: int
    node: str
    at: float
    skew: float


def read_start(group: Group, index: int, id: str, submitted: float, lag: float) -> Start | None:
    """The mark of an attempt that is known as `id` and was submitted then; None: there is none, or not all of it yet."""
    path = group.path(f"{index}.start")
    words = read_words(path)
    if words is None:
        return None
    now = time.time()
    said = float(words.get("at") or now)
    try:
        marked = os.stat(path).st_mtime + lag
    except OSError:
        marked = said
    at = min(now, max(submitted, marked))
    return Start(begun_as(id, str(words.get("native") or "")), int(words.get("pid") or 0), str(words.get("node") or "?"), at, at - said)


def note_start(member: Member, lag: float) -> tuple[Start, str] | None:
    """Take over what the mark of an attempt says. Returns it, and the id of a second job that is not needed or an empty text; None: no mark."""
    start = read_start(member.group, member.index, member.id, member.submitted, lag)
    if start is None:
        return None
    other = member.id if member.id != start.id else ""
    if other:
        member.job, member.final, member.absent = None, None, None
    member.id, member.skew = start.id, start.skew
    return start, other


def begin(member: Member, start: Start, where: str) -> Begun:
    """It has begun; the news of that."""
    member.has_begun, member.is_held = True, False
    member.reason, member.refusal = "", ""
    waited = f", waited there {format_seconds(start.at - member.submitted)}" if member.submitted else ""
    return Begun(member.key, start.pid, start.at, f"{where} job {member.id} on {start.node}{waited}", member.native)


def begun_as(id: str, native: str) -> str:
    """The id, as listings show it, of the job that calls itself `native`. It differs from `id` by its number alone, if at all."""
    known, own = _NUMBER.match(id), _NUMBER.match(native)
    if own is None or (known is not None and known[0] == own[0]):
        return id
    return native if known is None else own[0] + id[known.end() :]


def lag_of(path: str) -> float:
    """How far the clock of the file system is behind ours, by a file that was written just now."""
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return 0.0


def measure_lag(directory: str) -> float:
    """The same, by a file that is made for it."""
    path = os.path.join(directory, ".clock")
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("\n")
        lag = lag_of(path)
        os.unlink(path)
    except OSError:
        return 0.0
    return lag


def strays(jobs: Mapping[str, NativeJob], members: Iterable[Member]) -> list[str]:
    """Ids of jobs that wait and are a second acceptance of what has begun. While neither has, nobody knows which one will."""
    waiting: dict[str, list[str]] = {}
    for job in jobs.values():
        if job.state is NativeState.PENDING and job.tag:
            waiting.setdefault(job.tag, []).append(job.id)
    if not waiting:
        return []
    begun = (member for member in members if member.has_begun and member.id)
    return [id for member in begun for id in waiting.get(member.group.tag, ()) if id != member.id and begun_as(member.id, id) == id]
