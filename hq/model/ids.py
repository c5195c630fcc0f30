"""Names of jobs and tasks: `1234` is a job (and its one task), `1234_7` element 7 of an array job."""

from __future__ import annotations

import re
from typing import NamedTuple

from hq.errors import InputError

#: The index of the single task of a plain job.
PLAIN = -1

_TASK = re.compile(r"([1-9][0-9]{0,17})(?:_([0-9]{1,10}))?", re.ASCII)


class TaskKey(NamedTuple):
    """One task: the job's id and the array index, `PLAIN` for a plain job."""

    job: int
    index: int = PLAIN  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a key

    def __str__(self) -> str:
        return str(self.job) if self.index == PLAIN else f"{self.job}_{self.index}"


class AttemptKey(NamedTuple):
    """One attempt of a task. The attempt number (from 1) is the fence: a report about an older one changes nothing."""

    job: int
    index: int  # type: ignore[assignment]
    attempt: int

    @property
    def task(self) -> TaskKey:
        """The task that this is an attempt of."""
        return TaskKey(self.job, self.index)

    def __str__(self) -> str:
        return f"{self.task} attempt {self.attempt}"


def parse_task_key(text: str) -> TaskKey:
    """Read `1234` or `1234_7`.

    Raises InputError for anything else.
    """
    found = _TASK.fullmatch(text)
    if found is None:
        raise InputError(f"'{text}' is not a job id: expected a number such as 1234, or 1234_7 for one task of an array")
    return TaskKey(int(found[1]), PLAIN if found[2] is None else int(found[2]))
