"""Many rows into a table at once, at the speed of the database rather than of its driver.

SQLite takes one prepared statement and a list of tuples. For MySQL the rows are written out as literals into few large
statements, with the driver's own quoting: one call a text value instead of a dozen. That quoting is sound because `hq.db.engine`
sets the session to utf8mb4 and to a mode in which the backslash escapes. Only this module writes values into SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pymysql.converters import escape_string
from sqlalchemy import Connection, Table

from hq.db.types import LAST_MOMENT, Moment, to_datetime

#: Characters of one statement, far below the least max_allowed_packet in use; a longer row goes alone.
LONGEST_STATEMENT = 900_000
#: Keys of one statement that deletes.
MOST_KEYS = 1000


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return to_datetime(float(second)).strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")


def moment_text(moment: float | None) -> str | None:
    """A moment as both databases store and read it: `2026-11-21 11:43:00.123456`. Out of range as `to_datetime`."""
    if moment is None:
        return None
    if not 0 < moment < LAST_MOMENT:
        return to_datetime(moment).isoformat(" ", "microseconds")
    second = int(moment)
    micro = round((moment - second) * 1e6)
    if micro == 1_000_000:
        second, micro = second + 1, 0
    return f"{_second_text(second)}.{micro:06}"


def _quoted(text: str) -> str:
    return f"'{escape_string(text)}'"


def _literal(value: Any) -> str:
    """A value of a column as MySQL reads it."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float):
        text = repr(value)
        return text if "e" in text or "n" in text else f"{text}e0"  # without an exponent it would be a decimal
    if isinstance(value, bytes):
        return f"_binary X'{value.hex()}'"
    raise TypeError(f"{type(value).__name__} in a row")


@lru_cache(maxsize=64)
def _plan(table: Table, is_sqlite: bool, mutable: tuple[str, ...] | None, is_append: bool) -> tuple[tuple[str, ...], frozenset[str], str, str]:
    """Columns, those with moments, and the statement before and after the values."""
    quote = '"' if is_sqlite else "`"
    keys = [column.name for column in table.primary_key]
    columns = tuple(column.name for column in table.columns if not (is_append and column.name in keys))
    moments = frozenset(column.name for column in table.columns if isinstance(column.type, Moment))
    names = [name for name in columns if name not in keys] if mutable is None else list(mutable)
    head = f"INSERT INTO {quote}{table.name}{quote} ({', '.join(f'{quote}{name}{quote}' for name in columns)}) VALUES "
    if is_append:
        tail = ""
    elif is_sqlite:
        sets = ", ".join(f'"{name}" = excluded."{name}"' for name in names)
        tail = f" ON CONFLICT ({', '.join(keys)}) DO " + (f"UPDATE SET {sets}" if names else "NOTHING")
    else:
        # INSERT IGNORE would also ignore data that does not fit
        tail = " ON DUPLICATE KEY UPDATE " + ", ".join(f"`{name}` = VALUES(`{name}`)" for name in names or keys[:1])
    return columns, moments, head, tail


def put(connection: Connection, table: Table, rows: Iterable[dict[str, Any]], mutable: Sequence[str] | None = None) -> None:
    """Insert rows, or update `mutable` columns (None: all, empty: none) of those whose primary key is there already."""
    _send(connection, table, rows, None if mutable is None else tuple(mutable), is_append=False)


def append(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows into a table that numbers them itself."""
    _send(connection, table, rows, None, is_append=True)


def _send(connection: Connection, table: Table, rows: Iterable[dict[str, Any]], mutable: tuple[str, ...] | None, *, is_append: bool) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    columns, moments, head, tail = _plan(table, is_sqlite, mutable, is_append)
    pick: list[tuple[str, bool]] = [(name, name in moments) for name in columns]
    if is_sqlite:
        every = [tuple([moment_text(row[name]) if is_moment else row[name] for name, is_moment in pick]) for row in rows]
        if every:
            _cursor(connection).executemany(f"{head}({', '.join('?' * len(columns))}){tail}", every)
        return
    for text in _statements(_literals(rows, pick), head, tail):
        _cursor(connection).execute(text)


def _cursor(connection: Connection) -> Any:
    """The driver's own: for a few rows what lies above it costs more than the database."""
    return connection.connection.cursor()


def remove(connection: Connection, table: Table, keys: Sequence[tuple[Any, ...]]) -> None:
    """Delete the rows with these primary keys."""
    names = [column.name for column in table.primary_key]
    if connection.dialect.name == "sqlite":
        if keys:
            _cursor(connection).executemany(f'DELETE FROM "{table.name}" WHERE ' + " AND ".join(f'"{name}" = ?' for name in names), keys)
        return
    for start in range(0, len(keys), MOST_KEYS):
        some = keys[start : start + MOST_KEYS]
        columns = [list(dict.fromkeys(values)) for values in zip(*some, strict=True)]
        # ranges of the primary key; only a mixture needs pairs, which the server compares one by one
        conditions = [f"`{name}` IN ({','.join(map(_literal, values))})" for name, values in zip(names, columns, strict=True)]
        if sum(len(values) > 1 for values in columns) > 1:
            conditions.append(f"({', '.join(f'`{name}`' for name in names)}) IN ({','.join(_row(key) for key in some)})")
        _cursor(connection).execute(f"DELETE FROM `{table.name}` WHERE " + " AND ".join(conditions))


def _row(values: Iterable[Any]) -> str:
    return f"({','.join(map(_literal, values))})"


def take_turn(connection: Connection, batch: str, epoch: int | None) -> bool:
    """Write the name of a batch into the lease row, which locks it. False: it stands there already, or the epoch is another."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    text = f"UPDATE lease SET batch = {mark} WHERE id = 1 AND batch <> {mark}" + (f" AND epoch = {mark}" if epoch is not None else "")
    cursor = _cursor(connection)
    cursor.execute(text, (batch, batch) if epoch is None else (batch, batch, epoch))
    return bool(cursor.rowcount)


def _literals(rows: Iterable[dict[str, Any]], pick: list[tuple[str, bool]]) -> Iterator[str]:
    literal: Callable[[Any], str] = _literal
    for row in rows:
        yield "(" + ",".join([f"'{moment_text(row[name])}'" if is_moment and row[name] is not None else literal(row[name]) for name, is_moment in pick]) + ")"


def _statements(values: Iterable[str], head: str, tail: str) -> Iterator[str]:
    some: list[str] = []
    size = 0
    for value in values:
        if some and size + len(value) > LONGEST_STATEMENT:
            yield head + ",".join(some) + tail
            some, size = [], 0
        some.append(value)
        size += len(value) + 1
    if some:
        yield head + ",".join(some) + tail
