"""What listings look like: a table for people, JSON of a stable schema for programs, bare ids for pipes.

Cells are escaped (`hq.model.text.printable`), because names and commands are foreign text. Tables are cut to the width of a
terminal; in a pipe only commands of extreme length are. The schema of rows is documented in docs/json.rst.
"""

from __future__ import annotations

import json
import sys

from hq.client.moments import format_moment
from hq.model.quantities import format_bytes, format_seconds
from hq.model.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

ROWS_SCHEMA = "hq.rows.1"
#: Characters of a command in a table; JSON has all of it.
LONGEST_COMMAND = 500
#: Characters of an index set beside a job's id.
LONGEST_ARRAY = 40


def print_json(value: Any) -> None:
    """One JSON document: indented on a terminal, one line in a pipe."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return printable(str(value))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table with a line of headers; numbers to the right."""
    from tabulate import tabulate

    taken = [list(row) for row in rows]
    numeric = [all(row[at] is None or isinstance(row[at], (int, float)) for row in taken) and bool(taken) for at in range(len(headers))]
    text = tabulate(
        [[cell(value) for value in row] for row in taken],
        headers=list(headers),
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if each else "left" for each in numeric] if taken else None,
        preserve_whitespace=True,
    )
    width = terminal_width()
    for line in text.splitlines():
        line = line.rstrip()
        print(line if width is None or len(line) <= width else line[: width - 1] + "…")


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None if it is none."""
    if not sys.stdout.isatty():
        return None
    from shutil import get_terminal_size

    return max(get_terminal_size().columns, 20)


def print_facts(facts: dict[str, Any], values: dict[str, Any]) -> None:
    """Facts by name, one a line; with `--json` as an object."""
    if values.get("json"):
        print_json({"schema": "hq.facts.1", "facts": facts})
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{printable(name) + ':':<{width + 1}} {cell(value)}")


def ending(row: dict[str, Any]) -> str:
    """How a finished job ended, in a word or two: `ok`, `failed 3`, `failed signal 9`, `timeout`."""
    outcome = row.get("outcome")
    if outcome is None:
        return ""
    if outcome == "failed" and row.get("signal"):
        return f"failed signal {row['signal']}"
    if outcome == "failed" and row.get("exit_code") is not None:
        return f"failed {row['exit_code']}"
    return str(outcome)


def standing(row: dict[str, Any]) -> str:
    """The state of a row, and for an array how many of its tasks are through."""
    from hq.client.progress import done_of, once

    tasks: dict[str, int] = row.get("tasks") or {}
    total, done = sum(once(tasks).values()), done_of(tasks)
    state = str(row["state"])
    return f"{state} {done}/{total}" if row.get("array") and total and done < total else state


def elapsed(row: dict[str, Any], now: float) -> str:
    """How long it has run."""
    if row.get("started") is None:
        return "-"
    return format_seconds(max(0.0, (row["ended"] if row.get("ended") is not None else now) - row["started"]))


def native(row: dict[str, Any]) -> str:
    """The job of a batch system that a row is, and how it stands there, in that system's own words."""
    id, words = row.get("native_id"), [row.get("native_state"), row.get("native_reason")]
    about = ", ".join(dict.fromkeys(word for word in words if word))
    return f"{id or ''}{f' ({about})' if about else ''}".strip()


def shortened(text: str, most: int = LONGEST_COMMAND) -> str:
    """The beginning of a text that would flood a pipe or a screen: a command may have a megabyte."""
    return text if len(text) <= most else text[: most - 1] + "…"


JOB_HEADERS = ("id", "name", "group", "state", "ended as", "host", "native", "slots", "prio", "submitted", "ran", "command")


def print_rows(rows: list[dict[str, Any]], values: dict[str, Any], now: float, *, is_cut: bool = False, how_to_see_more: str = "") -> None:
    """A listing of jobs or tasks in the form that the options ask for. That it was cut is told on stderr, if there is a word on how to see more."""
    if values.get("json"):
        print_json({"schema": ROWS_SCHEMA, "rows": rows, "is_cut": is_cut})
    elif values.get("quiet"):
        for row in rows:
            print(row["task"])
    elif not rows:
        print("no jobs")
    else:
        headers = list(JOB_HEADERS)
        table = [
            [
                row["task"] + (f" [{shortened(row['array'], LONGEST_ARRAY)}]" if row.get("array") else ""), row["name"], row["group"], standing(row), ending(row),
                row["host"], native(row), row["slots"], row["priority"], format_moment(row["submitted"], now), elapsed(row, now),
                shortened(row["command"]),
            ]
            for row in rows
        ]  # fmt: skip
        # columns that say nothing here only push the command off the screen
        for name in ("group", "prio", "ended as", "host", "native"):
            at = headers.index(name)
            if not any(line[at] for line in table):
                del headers[at]
                for line in table:
                    del line[at]
        print_table(headers, table)
    if is_cut and how_to_see_more and not values.get("json"):
        print(f"only the newest {len(rows)} are shown ({how_to_see_more})", file=sys.stderr)


def host_rows(rows: list[dict[str, Any]]) -> tuple[Sequence[str], list[list[Any]]]:
    """Headers and lines of the table of hosts."""
    headers = ("host", "address", "state", "reachable", "slots", "of", "load", "memory free", "link", "queue", "info", "note")
    lines = [
        [
            row["name"], row["address"], row["state"], row["reachable"], row["occupied"], row["slots"], row["load1"],
            f"{format_bytes(row['memory_free'])} of {format_bytes(row['memory'])}", row["link"], row["queue"], row["info"], row["reason"],
        ]
        for row in rows
    ]  # fmt: skip
    return headers, lines
