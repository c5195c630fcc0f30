"""Verbs that list: jobs, groups, hosts."""

from __future__ import annotations

from dataclasses import replace

from hq.client.options import whole_number
from hq.client.output import host_rows, print_json, print_rows, print_table
from hq.client.selecting import select
from hq.client.wire import selection_dict
from hq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hq.client.call import Call
    from hq.model.selection import Selection

#: Rows of a listing without --limit.
LIMIT = 1000


def _show(call: Call, selection: Selection, limit: int | None) -> int:
    by_task = bool(call.values.get("tasks")) or any(task.index >= 0 for task in selection.tasks)
    answer = call.session.ask(
        {"type": "job.query", "selection": selection_dict(selection), "by_task": by_task, "limit": limit}, timeout=None if limit is None else 60.0
    )
    # whoever named a number knows that there may be more
    how_to_see_more = {LIMIT: "--limit all shows more", None: "one listing holds no more: select some"}.get(limit, "")
    print_rows(answer["rows"], call.values, call.now(), is_cut=bool(answer.get("is_cut")), how_to_see_more=how_to_see_more)
    return 0


def jobs(call: Call, words: list[str]) -> int:
    """List jobs. `all` are also those that have ended, which is what a selection without names lists."""
    selection = select(call, words)
    if selection.is_all:
        selection = replace(selection, is_all=False, is_last=False, tasks=(), ranges=())
    return _show(call, selection, call.values.get("limit", LIMIT))


def by_state(call: Call, words: list[str]) -> int:
    """lswjobs and its sisters: `lsfjobs:5`, `lsfjobs:all`."""
    limit = call.values.get("limit", call.verb.fixed.get("limit", LIMIT))
    if words:
        try:
            limit = None if words[0] == "all" else whole_number(1)(words[0])
        except ValueError as error:
            raise UsageError(f"{call.verb.name}: how many? {error}") from None
    return _show(call, replace(select(call, []), states=tuple(call.verb.fixed["states"])), limit)


def find(call: Call, words: list[str]) -> int:
    """List jobs that have a text."""
    return _show(call, replace(select(call, []), text=" ".join(words)), call.values.get("limit", LIMIT))


def groups(call: Call, words: list[str]) -> int:
    """List groups, or one."""
    rows = call.session.ask({"type": "group.query", "group": words[0] if words else None})["rows"]
    if call.is_json:
        print_json({"schema": "hq.groups.1", "rows": rows})
    elif call.is_quiet:
        from hq.model.text import printable

        for row in rows:
            print(printable(row["group"]))
    elif not rows:
        print("no groups")
    else:
        from hq.client.progress import describe, done_of, once

        print_table(
            ("group", "jobs", "tasks", "done", "by state"),
            [
                (row["group"], row["jobs"], total := sum(once(row["tasks"]).values()), f"{100 * done_of(row['tasks']) // max(total, 1)}%", describe(row["tasks"]))
                for row in rows
            ],
        )
    return 0


def audit(call: Call, words: list[str]) -> int:
    """List what was done about the caller."""
    if words and not (words[0].isascii() and words[0].isdigit() and len(words[0]) < 7):
        raise UsageError(f"audit {words[0]}: a number of rows is expected")
    rows = call.session.ask({"type": "audit.query", "limit": int(words[0]) if words else 100})["rows"]
    if call.is_json:
        print_json({"schema": "hq.audit.1", "rows": rows})
    elif not rows:
        print("nothing was done about you")
    else:
        import time

        print_table(
            ("when", "who", "as", "did", "to", "detail"),
            [(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"])), *(row[name] for name in ("actor", "role", "action", "target", "detail")))
             for row in rows],
        )  # fmt: skip
    return 0


def hosts(call: Call, words: list[str]) -> int:
    """List hosts."""
    rows = call.session.ask({"type": "host.query"})["rows"]
    if call.is_json:
        print_json({"schema": "hq.hosts.1", "rows": rows})
    elif call.is_quiet:
        for row in rows:
            print(row["name"])
    elif not rows:
        print("no hosts")
    else:
        headers, lines = host_rows(rows)
        print_table(headers, lines)
    return 0
