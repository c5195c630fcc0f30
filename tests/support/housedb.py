"""The house with a state database that fails: at any commit before it is made, after it was made (the answer is lost), by its data, or it is away for a while.

The writer is as `hq.db.writer`, but tries again with each tick: what can be cured by waiting is repeated under the same name, everything else comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from hq.errors import DatabaseError, UnavailableError
from hq.model.changes import Changes
from hq.protocol.base import Problem
from tests.support.house import ROUND, House
from tests.support.serverroom import Done

BEFORE, AFTER, REFUSED, AWAY = "before", "after", "refused", "away"
#: What may become of a commit.
FAULTS = (BEFORE, AFTER, REFUSED, AWAY)
#: Rounds for which a database is away: longer than a request waits in silence.
LONG = 14


class FaultyDatabase:
    """Counts commits; `faults[k]` is what becomes of the k-th."""

    def __init__(self) -> None:
        self.commits = 0
        self.faults: dict[int, str] = {}
        self.away = 0  # rounds left
        self.met = 0

    def write(self, write: Callable[[], None]) -> None:
        """A commit, or what becomes of it."""
        self.reach()
        self.commits += 1
        kind = self.faults.get(self.commits)
        self.met += kind is not None
        if kind == AWAY:
            self.away = LONG
            self.reach()
        if kind == BEFORE:
            raise UnavailableError("the state database went away")
        if kind == REFUSED:
            raise DatabaseError("the state database does not take this")
        write()
        if kind == AFTER:
            raise UnavailableError("the state database went away with its answer")

    def reach(self) -> None:
        """Raises UnavailableError while it is away."""
        if self.away:
            raise UnavailableError("the state database is away")


class FaultyWriter:
    """As Writer, driven by ticks."""

    def __init__(self, store: Any, house: FaultyHouse) -> None:
        self.trouble: str | None = None
        self._store, self._house = store, house
        self._under_way: tuple[Any, Changes, str] | None = None
        self._done: list[Done] = []

    def submit(self, token: Any, changes: Changes) -> None:
        """As Writer.submit."""
        assert self._under_way is None, "one commit at a time"
        self._house.batches += 1
        self._under_way = (token, changes, f"batch-{self._house.batches}")
        self._try()

    def finished(self) -> list[Done]:
        """As Writer.finished."""
        self._try()
        done, self._done = self._done, []
        return done

    def _try(self) -> None:
        if self._under_way is None:
            return
        token, changes, batch = self._under_way
        try:
            self._house.database.write(lambda: self._store.write(changes, batch=batch))
        except UnavailableError as error:
            self.trouble = str(error)
            return
        except DatabaseError as error:
            self._done.append(Done(token, error))
        else:
            self._done.append(Done(token, None))
        self.trouble, self._under_way = None, None
        self._house.point()


class FaultyHouse(House):
    """The house on such a database. hq-server does not come up while it is away."""

    def __init__(self, directory: Path, engine: Engine | None = None) -> None:
        super().__init__(directory, engine)
        self.database = FaultyDatabase()
        self.batches = 0
        self._wrapped: Any = None

    def __enter__(self) -> FaultyHouse:
        super().__enter__()
        self.room._writer_factory = lambda store: FaultyWriter(store, self)  # type: ignore[assignment,return-value]
        self.room.writer = self.room.server.writer = FaultyWriter(self.room.store, self)  # type: ignore[assignment]
        return self

    def round(self, seconds: float = ROUND) -> None:
        """As House.round. Who was refused, or told no id, asks again."""
        super().round(seconds)
        self.database.away = max(0, self.database.away - 1)
        for number, (_, asker) in enumerate(self.asks):
            if asker.answers and (isinstance(asker.answers[-1], Problem) or getattr(asker.answers[-1], "kept", "")):
                asker.answers.clear()
                self._sent.discard(number)

    def until(self, condition: Callable[[], bool], what: str, rounds: int = 600) -> None:
        """As House.until. It must hold with all that is under way committed, too."""
        is_so = False
        while not is_so:
            super().until(lambda: condition() and not self.database.away, what, rounds)
            for _ in range(3):
                self.round()
            is_so = condition() and not self.database.away

    def _tick_server(self) -> None:
        if self.database.away and not self.is_server_up:
            return
        super()._tick_server()
        background = self.room.server.background
        if background is not self._wrapped:
            self._wrapped, run = background, background.run

            def reached(token: Any, function: Callable[[], Any]) -> None:
                def asked() -> Any:
                    self.database.reach()
                    return function()

                run(token, asked)

            background.run = reached  # type: ignore[method-assign]


def faulty_house_at(directory: Path, engine: Engine) -> FaultyHouse:
    """As house_at."""
    directory.mkdir()
    return FaultyHouse(directory, engine)
