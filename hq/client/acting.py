"""Verbs that change jobs: cancel, hold, release, requeue, resolve, modify, signal."""

from __future__ import annotations

import sys

from hq.client.entry import say
from hq.client.options import signal_number
from hq.client.selecting import select_named
from hq.client.wire import selection_dict
from hq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hq.client.call import Call


def act(call: Call, words: list[str], **more: Any) -> int:
    """Act on the selected jobs, and say what became of each. Exit code 1 if one of them was not done."""
    message = {
        "type": "job.act", "action": call.verb.fixed.get("action", call.verb.name), "selection": selection_dict(select_named(call, words)),
        "reason": call.values.get("reason", ""), **more,
    }  # fmt: skip
    results = call.session.ask(message)["results"]
    if call.is_json:
        from hq.client.output import print_json

        print_json({"schema": "hq.acted.1", "results": results})
    elif not results:
        say("hq-client", "no job is selected by that")
    else:
        from hq.model.text import printable

        for each in results:
            if call.is_quiet and each["is_done"]:
                print(each["id"])
            else:
                text = printable(each["text"]) or ("done" if each["is_done"] else "not done")
                print(f"{each['id']}: {text}", file=sys.stdout if each["is_done"] else sys.stderr)
    return 0 if all(each["is_done"] for each in results) else 1


def modify(call: Call, words: list[str]) -> int:
    """Change wishes. Values travel as text: numbers in seconds, bytes and Unix time, hosts between commas."""
    values = call.values
    changes: dict[str, str] = {}
    for key, field in (
        ("priority", "priority"), ("set_group", "group"), ("info_text", "info"), ("hosts", "hosts"), ("exclude_hosts", "exclude"),
        ("queue", "queue"), ("throttle", "throttle"), ("begin", "begin"), ("after", "after"), ("estimated_time", "estimated_time"),
        ("estimated_memory", "estimated_memory"),
    ):  # fmt: skip
        if key in values:
            changes[field] = as_text(field, values[key])
    if not changes:
        raise UsageError("what should change? for instance hq-client modify 12 --priority 5 (see hq-client modify --help)")
    return act(call, words, changes=changes)


def as_text(field: str, value: Any) -> str:
    """A wish as `hq.core.modify` reads it: whole seconds, bytes with their unit, the rest as it is."""
    if field == "estimated_time":
        return str(round(value))
    return f"{value}B" if field == "estimated_memory" else str(value)


def resolve(call: Call, words: list[str]) -> int:
    """Say what became of jobs whose host is lost."""
    if "as" not in call.values:
        raise UsageError("what became of it? hq-client resolve ID --as ok, failed, lost or requeue")
    return act(call, words, changes={"as": call.values["as"]})


def signal(call: Call, words: list[str]) -> int:
    """Send a signal: `signal 12 USR1`, `signal USR1 12`, `signal -s 10 12`."""
    name = call.values.get("signal")
    if name is None:
        for at in (-1, 0):
            if words and words[at][:1].isalpha() and words[at].lower() not in ("last", "all") and not words[at].startswith("last"):
                name = words.pop(at)
                break
    if name is None:
        raise UsageError("which signal? for instance hq-client signal 12 USR1, or by number: hq-client signal -s 10 12")
    return act(call, words, signal=signal_number(name))
