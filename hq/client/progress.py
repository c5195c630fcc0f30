"""Showing how watched jobs go on: a bar on a terminal, a line now and then elsewhere. Writes to stderr; stdout stays for results."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Display(Protocol):
        """What is told about progress."""

        def show(self, total: dict[str, int]) -> None:
            """Counts of tasks by state, over all watched jobs."""
            ...

        def note(self, text: str) -> None:
            """A word for the person who waits."""
            ...

        def close(self) -> None:
            """Nothing more comes."""
            ...


#: Seconds between two lines where there is no terminal.
SPARSE = 30.0


def add_counts(jobs: list[dict[str, Any]]) -> dict[str, int]:
    """Tasks by state over all jobs, outcomes of finished ones as `finished:OUTCOME`."""
    total: dict[str, int] = {}
    for job in jobs:
        add_to(total, job["tasks"], 1)
    return total


def add_to(total: dict[str, int], tasks: dict[str, int], sign: int) -> None:
    """Add the counts of one job to a total, or with `sign` -1 take them away again."""
    for state, count in once(tasks).items():
        total[state] = total.get(state, 0) + sign * count


def once(tasks: dict[str, int]) -> dict[str, int]:
    """The counts without `finished` where its outcomes stand beside it: every task is counted once."""
    return {state: count for state, count in tasks.items() if state != "finished"} if any(":" in state for state in tasks) else tasks


def describe(total: dict[str, int]) -> str:
    """Counts in words: `3 running, 12 waiting, 85 ok`."""
    total = once(total)
    order = ("running", "starting", "suspended", "host_lost", "waiting", "held")
    named = [(state, total[state]) for state in order if total.get(state)]
    named += [(state.partition(":")[2] or "finished", count) for state, count in total.items() if state.startswith("finished") and count]
    return ", ".join(f"{count} {state}" for state, count in named)


def done_of(total: dict[str, int]) -> int:
    """How many tasks have finished."""
    return sum(count for state, count in once(total).items() if state.startswith("finished"))


class Silent:
    """Shows nothing."""

    def show(self, total: dict[str, int]) -> None:
        """As Display.show."""

    def note(self, text: str) -> None:
        """As Display.note."""

    def close(self) -> None:
        """As Display.close."""


class Lines:
    """A line at most every SPARSE seconds, and only if something changed."""

    def __init__(self) -> None:
        self._last = ""
        self._at = time.monotonic()

    def show(self, total: dict[str, int]) -> None:
        """As Display.show."""
        text = describe(total)
        if text != self._last and time.monotonic() - self._at >= SPARSE:
            print(text, file=sys.stderr, flush=True)
            self._last, self._at = text, time.monotonic()

    def note(self, text: str) -> None:
        """As Display.note."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """As Display.close."""


class Bar:
    """A bar of rich on the terminal that stderr is."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def show(self, total: dict[str, int]) -> None:
        """As Display.show."""
        self._progress.update(self._task, total=sum(total.values()), completed=done_of(total), description=describe(total))

    def note(self, text: str) -> None:
        """As Display.note."""
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """As Display.close."""
        self._progress.stop()


def make_display(is_quiet: bool) -> Display:
    """The display that fits where we are."""
    if is_quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()
