"""The writer thread: commits one batch after the other, in order, however long the database is away.

The daemon's loop submits and goes on; outcomes come back by `finished`, in the loop's own thread. What can be cured by waiting is
tried again for ever; an error comes back only for a batch that the database will never take.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from hq.db.store import Store
from hq.errors import UnavailableError
from hq.model.changes import Changes

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0


class Done(NamedTuple):
    """A batch that is committed (`error` None), or never will be. The same shape as the outcome of background work."""

    token: Any
    value: None
    error: BaseException | None


class Writer:
    """Writes batches of changes to a store, which is its own for writing. `wake` is called in the writer's thread after each batch."""

    def __init__(self, store: Store, wake: Callable[[], None] = lambda: None, epoch: int | None = None) -> None:
        self._store = store
        self._wake = wake
        self._epoch = epoch
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Any, Changes]] = deque()
        self._done: list[Done] = []
        self._is_writing = False
        self._is_closed = False
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="hq-writer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why the current batch cannot be committed now, one sentence without secrets; None while all is well."""
        return self._trouble

    @property
    def pending(self) -> int:
        """Batches that are neither committed nor refused yet."""
        with self._condition:
            return len(self._waiting) + self._is_writing

    def submit(self, token: Any, changes: Changes) -> None:
        """Commit these changes after all that was submitted before. They must not be altered any more."""
        with self._condition:
            assert not self._is_closed
            self._waiting.append((token, changes))
            self._condition.notify_all()

    def finished(self) -> list[Done]:
        """Outcomes since the last call, in the order of submission."""
        with self._condition:
            done, self._done = self._done, []
        return done

    def close(self, timeout: float = 10.0) -> bool:
        """Commit what was submitted, then end. False: the database did not take it within `timeout` seconds; the rest comes back
        from `finished` with an UnavailableError."""
        with self._condition:
            self._condition.wait_for(lambda: not self._waiting and not self._is_writing, timeout)
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join(timeout)
        with self._condition:
            left = [token for token, _ in self._waiting]
            self._waiting.clear()
            self._done += [Done(token, None, UnavailableError("hq-server stops before the state database took this")) for token in left]
            return not left and not self._thread.is_alive() and self._trouble is None

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    break
                token, changes = self._waiting.popleft()
                self._is_writing = True
            error = self._commit(changes)
            with self._condition:
                self._done.append(Done(token, None, error))
                self._is_writing = False
                self._condition.notify_all()
            self._wake()
        self._store.close()

    def _commit(self, changes: Changes) -> BaseException | None:
        batch, pause = uuid.uuid4().hex, FIRST_PAUSE
        while True:
            try:
                self._store.write(changes, self._epoch, batch=batch)
            except UnavailableError as error:
                is_news = self._trouble is None
                self._trouble = str(error)
                with self._condition:
                    if self._is_closed:
                        return error
                if is_news:
                    self._wake()
                with self._condition:
                    # jitter: whoever we are in a deadlock with waits as long as we
                    self._condition.wait_for(lambda: self._is_closed, pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001 - handed to the daemon, which must hear of it
                self._trouble = None
                return error
            else:
                self._trouble = None
                return None
