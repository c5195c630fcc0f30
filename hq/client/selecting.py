"""From the words of a SELECTION and the filter options to what a message carries."""

from __future__ import annotations

from dataclasses import replace

from hq.client.wire import selection_dict
from hq.errors import RefusedError, UsageError
from hq.model.ids import parse_task_key
from hq.model.selection import Selection, parse_selection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hq.client.call import Call
    from hq.client.connect import Session


def last_job(session: Session) -> int:
    """The id of the caller's latest job. Raises RefusedError if there is none."""
    answer = session.ask({"type": "job.query", "selection": selection_dict(Selection(is_last=True)), "limit": 1})
    if not answer["rows"]:
        raise RefusedError("you have submitted no job yet")
    return int(answer["rows"][0]["id"])


def task_text(session: Session, words: list[str]) -> str:
    """The one task that a verb is about: `1234`, `1234_7`, `last`, `last_7`; without a word the last. Raises InputError."""
    word = words[0] if words else "last"
    name, bar, index = word.partition("_")
    if name == "last":
        word = f"{last_job(session)}{bar}{index}"
    return str(parse_task_key(word))


def select(call: Call, words: list[str], **changes: Any) -> Selection:
    """The selection that words and filters mean. Raises InputError."""
    parts = [part for word in words for part in word.split(",")]
    if any(part.startswith("last_") for part in parts):
        number = last_job(call.session)
        parts = [f"{number}_{part.removeprefix('last_')}" if part.startswith("last_") else part for part in parts]
    values = call.values
    found = replace(
        parse_selection(parts),
        states=tuple(values.get("state", ())),
        group=values.get("group"),
        since=values.get("since"),
    )
    return replace(found, **changes)


def select_named(call: Call, words: list[str]) -> Selection:
    """As `select`, for verbs that change something: without any name or filter nothing is meant, not everything. Raises UsageError."""
    found = select(call, words)
    if found.is_empty:
        if found.group is None and not found.states and found.since is None:
            raise UsageError(f"which jobs? usage: hq-client {call.verb.name} {call.verb.args} (ids, ranges, last, all, --group NAME)")
        found = replace(found, is_all=True)
    return found
