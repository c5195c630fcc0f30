"""Which attempts are over here, and the newest attempt of each task: the fence against orders that come twice or too late."""

from __future__ import annotations

from collections.abc import Container, Iterable

from hq.model.ids import AttemptKey, TaskKey

MAX_SEEN = 1_000_000  # attempts that are remembered as done


class Fence:
    """The memory of an exec-server for attempts."""

    def __init__(self) -> None:
        self._seen: dict[AttemptKey, None] = {}  # attempts that are over, or never will be
        self._latest: dict[tuple[int, ...], int] = {}  # highest attempt of each task (job, index) that is known here

    def __contains__(self, key: object) -> bool:
        return key in self._seen

    def seen(self) -> Iterable[AttemptKey]:
        """Attempts that are over, oldest first."""
        return self._seen.keys()

    def latest(self, task: TaskKey) -> int:
        """The highest attempt of a task that is known, 0: none."""
        return self._latest.get(task, 0)

    def note(self, key: AttemptKey) -> None:
        """An attempt is known now."""
        task = key[:2]  # not key.task: this is done several times for each run
        if key.attempt > self._latest.get(task, 0):
            self._latest[task] = key.attempt

    def done(self, key: AttemptKey, live: Container[AttemptKey] = ()) -> None:
        """An attempt is over. What was over long ago is forgotten, but for tasks with an attempt in `live`."""
        self._seen[key] = None
        self.note(key)
        while len(self._seen) > MAX_SEEN:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            if self._latest.get(oldest[:2]) == oldest.attempt and oldest not in live:
                del self._latest[oldest[:2]]
