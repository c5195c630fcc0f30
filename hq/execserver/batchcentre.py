"""The commands of one batch system, politely: one submission at a time, one listing for all jobs and not too often, orders gathered.

Nothing here blocks: commands run in the background, their outcomes are taken by `take`. What follows from them is `batch`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import Logger
from typing import Any

from hq.execserver.backends.dialect import CommandResult, Dialect, NativeJob, Submission
from hq.execserver.commands import command_environment, run_command
from hq.kernel.daemon import Background
from hq.model.batch import BatchSettings

#: So many ids in one command.
AT_ONCE = 200
#: How much longer each pause between listings is while nothing changes.
SLOWER = 1.5
#: An order (cancel, signal) that the batch system does not take is given up after so many tries.
TRIES = 5
#: Orders of which the later one counts.
_OPPOSITES = {"hold": "release", "release": "hold"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission has this native id. `is_found`: it had been accepted before, and was found by its tag."""

    tag: str
    id: str
    is_found: bool


@dataclass(frozen=True, slots=True)
class Declined:
    """A submission was not accepted. `is_again`: it may be later; it is unknown whether it was, so its tag is looked for first."""

    tag: str
    words: str
    is_again: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """All jobs of the user, as they stood not before `asked` (CLOCK_BOOTTIME)."""

    jobs: dict[str, NativeJob]
    asked: float


@dataclass(frozen=True, slots=True)
class Silent:
    """The batch system did not answer a listing: nothing follows from that."""

    words: str


@dataclass(frozen=True, slots=True)
class Accounted:
    """What the accounting says of jobs that are listed no more."""

    jobs: dict[str, NativeJob]


@dataclass(frozen=True, slots=True)
class Balked:
    """An order to hold or release a job was refused, with these words."""

    what: str
    id: str
    words: str


Told = Accepted | Declined | Listed | Silent | Accounted | Balked


class Centre:
    """See the module. `user` is the Unix name that the batch system knows. `shared`: another one for the same user, whose listings serve for both."""

    def __init__(self, dialect: Dialect, settings: BatchSettings, user: str, background: Background, log: Logger, shared: Centre | None = None) -> None:
        self.dialect = dialect
        self.settings = settings
        self._user = user
        self._background = background
        self._log = log
        self._environment = command_environment(settings)
        self._is_submitting = False
        self._is_asking = False
        self._is_accounting = False
        self._is_ordering = False
        self._shared = shared
        self._sharers: list[Centre] = []
        self._mail: list[Told] = []  # listings of the one that we share
        self._ids: list[str] = []
        if shared is not None:
            shared._sharers.append(self)
        self._interval = settings.poll_interval
        self._asked = float("-inf")
        self._next_final = 0.0
        self._last: dict[str, tuple[str, str]] = {}
        self._orders: dict[tuple[str, int], dict[str, int]] = {}  # (what, signal) → id → tries
        self._next_order = 0.0
        self.silence = ""  # the words of the last listing, if it was none

    @property
    def is_free(self) -> bool:
        """Whether a submission may be made now."""
        return not self._is_submitting

    def submit(self, submission: Submission, must_look: bool) -> None:
        """Submit; with `must_look` only after its tag was looked for and not found."""
        self._is_submitting = True
        argv = self.dialect.submit_argv(submission)
        find = self.dialect.find_by_tag_argv(submission.tag, self._user) if must_look else []
        dialect, environment, timeout = self.dialect, self._environment, self.settings.command_timeout

        def work() -> Told:
            if find:
                found = run_command(find, environment, timeout)
                is_answer, id = dialect.parse_found(found, submission.tag)
                if id:
                    return Accepted(submission.tag, id, True)
                if not is_answer:
                    return Declined(submission.tag, found.words, True)
            result = run_command(argv, environment, timeout)
            if result.code == 0:
                try:
                    return Accepted(submission.tag, dialect.parse_submitted(result), False)
                except ValueError as error:
                    return Declined(submission.tag, str(error), True)
            return Declined(submission.tag, result.words, dialect.is_transient(result))

        self._background.run("submit", work)

    def order(self, what: str, ids: list[str], number: int = 0) -> None:
        """Cancel, hold, release or signal native jobs, as soon as it can be."""
        if not ids:
            return
        waiting = self._orders.setdefault((what, number), {})
        void = self._orders.get((_OPPOSITES.get(what, ""), 0), {})
        for id in ids:
            waiting.setdefault(id, 0)
            void.pop(id, None)

    def hurry(self) -> None:
        """Something changed: listings come at the short interval again."""
        (self._shared or self)._interval = self.settings.poll_interval

    def tend(self, ids: list[str], absent: list[str], boot: float) -> None:
        """Give the commands that are due: a listing if there is a job to ask for, the accounting for those that are listed no more."""
        self._ids = ids
        every = [id for each in (self, *self._sharers) for id in each._ids]
        if self._shared is None and every and not self._is_asking and boot >= self._asked + self._interval:
            self._is_asking = True
            self._asked = boot
            argv = self.dialect.query_argv(every, self._user)
            self._background.run(("query", boot), lambda: run_command(argv, self._environment, self.settings.command_timeout))
        if absent and self.dialect.has_accounting and not self._is_accounting and boot >= self._next_final:
            self._is_accounting = True
            self._next_final = boot + max(self.settings.poll_interval, 2.0)
            argv = self.dialect.final_argv(absent[:AT_ONCE])
            self._background.run("final", lambda: run_command(argv, self._environment, self.settings.command_timeout))
        if self._orders and not self._is_ordering and boot >= self._next_order:
            self._give_order()

    def _give_order(self) -> None:
        (what, number), waiting = next(iter(self._orders.items()))
        ids = list(waiting)[:AT_ONCE]
        if what in _OPPOSITES and any(waiting[id] for id in ids):
            ids = ids[:1]  # one of several was refused: which, and why, is learnt one by one
        dialect = self.dialect
        if what == "signal":
            argv = dialect.signal_argv(ids, number)
        else:
            argv = {"cancel": dialect.cancel_argv, "hold": dialect.hold_argv, "release": dialect.release_argv}[what](ids)
        self._is_ordering = True
        self._background.run(("order", what, number, tuple(ids)), lambda: run_command(argv, self._environment, self.settings.command_timeout))

    def wake(self, has_jobs: bool) -> float | None:
        """When `tend` has something to do."""
        has_jobs = self._shared is None and (has_jobs or any(each._ids for each in self._sharers))
        moments = [self._asked + self._interval] if has_jobs and not self._is_asking else []
        if self._mail:
            moments.append(0.0)
        if self._orders and not self._is_ordering:
            moments.append(self._next_order)
        return min(moments, default=None)

    def take(self, boot: float) -> list[Told]:
        """What came of commands since the last time."""
        found, self._mail = self._mail, []
        for token, value, error in self._background.finished():
            if error is not None:
                self._log.error("a command of %s failed here", self.dialect.name, exc_info=error)
            if token == "submit":
                self._is_submitting = False
                if isinstance(value, Accepted | Declined):
                    found.append(value)
            elif token == "final":
                self._is_accounting = False
                jobs = self.dialect.parse_final(value) if isinstance(value, CommandResult) else None
                if jobs is not None:
                    found.append(Accounted(jobs))
            elif token[0] == "query":
                self._is_asking = False
                if isinstance(value, CommandResult):
                    told = self._listed(value, token[1], boot)
                    for each in (found, *(sharer._mail for sharer in self._sharers)):
                        each.append(told)
            elif token[0] == "order":
                self._is_ordering = False
                found += self._ordered(token[1], token[2], token[3], value, boot)
        return found

    def _listed(self, result: CommandResult, asked: float, boot: float) -> Told:
        jobs = self.dialect.parse_query(result)
        if jobs is None:
            self._interval = min(self._interval * SLOWER, self.settings.poll_longest)
            self._log.warning("%s: %s", self.dialect.name, result.words)
            self.silence = result.words
            return Silent(result.words)
        self.silence = ""
        shown = {id: (job.word, job.reason) for id, job in jobs.items()}
        is_same = shown == self._last
        self._last = shown
        self._interval = min(self._interval * SLOWER, self.settings.poll_longest) if is_same else self.settings.poll_interval
        return Listed(jobs, asked)

    def _ordered(self, what: str, number: int, ids: tuple[str, ...], result: Any, boot: float) -> list[Balked]:
        waiting = self._orders.get((what, number), {})
        refused: list[Balked] = []
        # of several ids one that is gone makes the command fail; the others were served
        is_done = isinstance(result, CommandResult) and (result.code == 0 or (result.code is not None and not self.dialect.is_transient(result)))
        if is_done and what in _OPPOSITES and result.code != 0:
            is_done = len(ids) == 1
            refused = [Balked(what, ids[0], result.words)] if is_done else []
            self._log.info("%s of %s: %s", what, ids, result.words)
        elif not is_done:
            self._log.warning("%s does not take the order to %s: %s", self.dialect.name, what, getattr(result, "words", ""))
            self._next_order = boot + self.settings.retry_delays[0]
        for id in ids:
            tries = waiting.get(id, 0) + 1
            if is_done or (tries >= TRIES and what == "signal"):
                waiting.pop(id, None)
            else:
                waiting[id] = tries
        if not waiting:
            self._orders.pop((what, number), None)
        return refused
