"""Messages of `hq-admin`: words of a command out, text or a table back. The commands are a registry in hq-server."""

from __future__ import annotations

from typing import ClassVar

from hq.model.rows import Row
from hq.protocol.base import ADMIN, DOWN, Message

Cell = str | int | float | bool | None


class AdminRun(Message, frozen=True, kw_only=True, tag="admin.run"):
    """Run an administrator's command: the verb and its arguments."""

    sent_by: ClassVar = ADMIN
    answered_by: ClassVar = ("admin.answer", "problem")
    words: tuple[str, ...]


class AdminAnswer(Message, frozen=True, kw_only=True, tag="admin.answer"):
    """What came of it. With `columns` a table whose rows are `rows`; `text` stands above it. `is_done` False: exit code 1.

    A listing of jobs has them as `jobs`, too: what `--json` prints, in the schema of every listing; `is_cut`: there are more.
    """

    sent_by: ClassVar = DOWN
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    is_done: bool = True
    jobs: tuple[Row, ...] | None = None
    is_cut: bool = False
