"""Changing the wishes of a job: texts from a command line in, a checked record out."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from hq.core.demands import check_host_names, check_possible
from hq.core.jobs import LiveJob, shape_of
from hq.core.state import State
from hq.errors import InputError
from hq.model.job import check_wishes
from hq.model.quantities import parse_bytes, parse_seconds
from hq.model.states import TaskState


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"'{text}' is not a whole number") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _throttle(text: str) -> int | None:
    if text.strip() in ("", "0", "none"):
        return None
    count = _whole_number(text)
    if count < 1:
        raise InputError(f"throttle {count}: a number from 1 is expected, or none")
    return count


def _begin(text: str) -> float | None:
    text = text.strip()
    if text in ("", "now", "none"):
        return None
    try:
        moment = float(text)
    except ValueError:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(f"'{text}' is not a moment: write seconds since 1970, 2026-05-01T12:00:00+02:00, or now") from None
        if when.tzinfo is None:
            raise InputError(f"the moment '{text}' has no time zone") from None
        moment = when.timestamp()
    if not math.isfinite(moment) or not 0 <= moment < 1e11:
        raise InputError(f"the moment '{text}' is out of range")
    return moment


def _nothing(text: str) -> tuple[int, ...]:
    if text.strip() not in ("", "none"):
        raise InputError("a job that was submitted waits for no more jobs than before; none lets it go")
    return ()


def _optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.strip() in ("", "none") else parse(text)


#: Fields of Wishes that may be changed, and how their text is read.
FIELDS: dict[str, Callable[[str], Any]] = {
    "priority": _whole_number,
    "group": str,
    "info": str,
    "hosts": _names,
    "exclude": _names,
    "queue": str.strip,
    "throttle": _throttle,
    "begin": _begin,
    "after": _nothing,
    "estimated_time": _optional(parse_seconds),
    "estimated_memory": _optional(parse_bytes),
}


def modify(state: State, job: LiveJob, changes: dict[str, str]) -> str:
    """Change wishes of a job; all or none. Returns a sentence. Raises InputError or NeverError."""
    values: dict[str, Any] = {}
    for name, text in changes.items():
        if name not in FIELDS:
            raise InputError(f"'{name}' cannot be changed; what can: {', '.join(FIELDS)}")
        try:
            values[name] = FIELDS[name](text)
        except InputError as error:
            raise InputError(f"{name}: {error.message}") from None
    if "after" in values:
        values["after_any"] = ()
    record = job.record.with_wishes(**values)
    check_wishes(record.wishes)
    check_host_names(state, record.wishes.hosts, "hosts")
    check_host_names(state, record.wishes.exclude, "exclude")
    shape = shape_of(record)
    if shape != job.shape:
        check_possible(state, shape)
    state.save_job(job, record)
    job.shape = shape
    state.requeue_entry(job)
    state.changes.events.append((state.now, job.id, -1, 0, "modified", "", ", ".join(sorted(values))))
    still = sum(count for each, count in job.states.items() if each.is_placed)
    waits = job.untouched + job.states.get(TaskState.WAITING, 0) + job.states.get(TaskState.HELD, 0)
    return "changed" if waits or not still else "changed; what runs already is not affected"
