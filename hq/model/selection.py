"""Which jobs a command means: ids, ranges, `last`, `all`, and filters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hq.errors import InputError
from hq.model.ids import TaskKey, parse_task_key

_RANGE = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,17})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A set of jobs and tasks by name and by filter. Filters narrow what the names select.

    `is_all`: every live job. `is_last`: the latest submission. `states` are task states or outcomes. `since` is Unix time.
    """

    tasks: tuple[TaskKey, ...] = ()  # whole jobs have index PLAIN
    ranges: tuple[tuple[int, int], ...] = ()  # first and last job id
    is_all: bool = False
    is_last: bool = False
    states: tuple[str, ...] = ()
    group: str | None = None
    text: str | None = None  # in name, command, group or info
    since: float | None = None
    user: str | None = None  # admins only; None: the caller's own

    @property
    def is_empty(self) -> bool:
        """Whether no job is named, so that only filters count."""
        return not (self.tasks or self.ranges or self.is_all or self.is_last)


def parse_selection(words: list[str]) -> Selection:
    """Read words such as `12 14-20,31_4 last`. No word: an empty selection. Raises InputError."""
    tasks: list[TaskKey] = []
    ranges: list[tuple[int, int]] = []
    is_all = is_last = False
    for part in (part for word in words for part in word.split(",")):
        if part == "all":
            is_all = True
        elif part == "last":
            is_last = True
        elif found := _RANGE.fullmatch(part):
            first, last = int(found[1]), int(found[2])
            if last < first:
                raise InputError(f"the range '{part}' is empty")
            ranges.append((first, last))
        elif part:
            tasks.append(parse_task_key(part))
        else:
            raise InputError(f"'{' '.join(words)}' has an empty place between commas")
    return Selection(tasks=tuple(tasks), ranges=tuple(ranges), is_all=is_all, is_last=is_last)
