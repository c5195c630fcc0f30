"""The connection that a store writes by: kept between transactions, so that a small one costs its statements and its commit and no more.

What it costs to take a connection out of a pool, look whether it lives, begin by way of several layers and clean it up afterwards is more than
what a single job writes. Not the place for what is written, nor for what an error means.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from hq.db.engine import ALREADY_BEGUN

#: After so many seconds without a transaction the server may have dropped the connection: the pool looks.
UNSEEN = 5.0


class Pen:
    """One thread at a time. `is_kept` False: the connection goes back to the pool after each transaction."""

    def __init__(self, engine: Engine, *, is_kept: bool) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._is_kept = is_kept
        self._connection: Connection | None = None
        self._used = 0.0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Context: a transaction, committed at its end. With any error it is rolled back, and the connection given up. Raises what the driver raises."""
        connection = self._open()
        try:
            if self._is_sqlite:
                # a writer takes its lock at once: a reader that becomes a writer half-way could only fail
                connection.connection.cursor().execute("BEGIN IMMEDIATE")
            yield connection
            if connection.in_transaction():
                connection.commit()
            else:
                connection.connection.commit()
        except BaseException:
            self._connection = None
            connection.invalidate()
            connection.close()
            raise
        self._used = time.monotonic()
        if not self._is_kept:
            self.close()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> Connection:
        if self._connection is not None and time.monotonic() - self._used > UNSEEN:
            self.close()
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**{ALREADY_BEGUN: True})
        return self._connection
