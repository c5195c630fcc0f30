"""Verbs about one thing: a job, why it waits, its output, the user-server itself; and waiting."""

from __future__ import annotations

import time

from hq.client.entry import say, write_out
from hq.client.output import cell, ending, native, print_facts, print_json, print_table
from hq.client.selecting import select, task_text
from hq.client.wire import selection_dict, text_bytes
from hq.errors import RefusedError, UnavailableError
from hq.model.ids import parse_task_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hq.client.call import Call

#: Seconds before each attempt to go on following after the user-server went away.
PAUSES = (0.2, 1.0, 2.0, 5.0, 10.0)


def facts(call: Call, words: list[str]) -> int:
    """`info` and `status`."""
    answer = call.session.ask({"type": "peer.ask", "what": call.verb.fixed.get("what", "info")})
    print_facts(answer["facts"], call.values)
    return 0


def details(call: Call, words: list[str]) -> int:
    """A job, or the user-server."""
    return job(call, words) if words else facts(call, words)


def job(call: Call, words: list[str]) -> int:
    """Everything about one job or task."""
    answer = call.session.ask({"type": "job.show", "task": task_text(call.session, words)})
    row: dict[str, Any] = answer["row"]
    if call.is_json:
        print_json({"schema": "hq.job.1", "row": row, "facts": answer["facts"], "history": answer["history"]})
        return 0
    if call.is_quiet:
        print(row["task"])
        return 0
    from hq.client.moments import format_moment
    from hq.client.progress import describe
    from hq.model.quantities import format_bytes, format_seconds

    now = call.now()
    shown: dict[str, Any] = {
        "job": row["task"], "name": row["name"], "group": row["group"], "user": row["user"], "command": row["command"],
        "state": row["state"], "ended as": ending(row) or None, "reason": row["reason"], "tasks": describe(row["tasks"]) or None,
        "array": row["array"], "host": row["host"], "attempt": row["attempt"], "slots": row["slots"], "priority": row["priority"],
        "native job": native(row), "native wait": format_seconds(row.get("native_wait_seconds")),
        "submitted": format_moment(row["submitted"], now), "started": format_moment(row["started"], now),
        "ended": format_moment(row["ended"], now), "peak memory": format_bytes(row["max_rss"]),
        "cpu time": format_seconds(row["cpu_seconds"]), "info": row["info"],
    }  # fmt: skip
    shown = {name: value for name, value in shown.items() if value not in (None, "", "-")}
    for name, value in answer["facts"].items():
        shown.setdefault(name, format_moment(value, now) if name == "begin" else value)
    print_facts(shown, {})
    if answer["history"]:
        print()
        print_table(
            ("at", "task", "attempt", "state", "host", "reason"),
            [(format_moment(each["at"], now), each["task"], each["attempt"], each["state"], each["host"], each["reason"]) for each in answer["history"]],
        )
    return 0


def why(call: Call, words: list[str]) -> int:
    """Why a job waits, where it runs, how it ended."""
    answer = call.session.ask({"type": "job.explain", "task": task_text(call.session, words)})
    if call.is_json:
        print_json({"schema": "hq.why.1", "task": answer["task"], "sentences": answer["sentences"]})
    else:
        for sentence in answer["sentences"]:
            print(cell(sentence))
    return 0


def wait(call: Call, words: list[str]) -> int:
    """Wait for jobs; without a selection for all that live."""
    from dataclasses import replace

    from hq.client.waiting import wait_for

    selection = select(call, words)
    if selection.is_empty:
        selection = replace(selection, is_all=True)
    return wait_for(call.session, selection_dict(selection), "hq-client", is_quiet=call.is_quiet, is_json=call.is_json)


def _wait_for_start(call: Call, task: str) -> None:
    """Wait until a task runs or has ended. Raises as Session.stream."""
    key = parse_task_key(task)
    for news in call.session.stream({"type": "job.watch", "selection": {"tasks": [list(key)]}}):
        if any(state.startswith(("running", "suspended", "finished")) for job in news["jobs"] for state in job["tasks"]):
            break
    call.session.close()


def log(call: Call, words: list[str]) -> int:
    """Write a stream of a task to stdout, byte for byte; following goes on over a lost connection."""
    values = call.values
    task = task_text(call.session, words)
    offset = -values["tail"] if "tail" in values else 0
    message = {
        "type": "log.read", "task": task, "stream": values.get("stream", "stdout"), "offset": offset, "is_following": bool(values.get("follow")),
    }  # fmt: skip
    pauses = list(PAUSES)
    if values.get("path"):
        message.update(offset=-1, is_following=False)
    is_early = False
    while True:
        try:
            if is_early:
                _wait_for_start(call, task)
            for piece in call.session.stream(message):
                pauses = list(PAUSES)
                if values.get("path"):
                    if not piece.get("path"):
                        raise RefusedError(f"where the output of {task} is, is not known")
                    print(piece["path"])
                    return 0
                data = text_bytes(piece["data"])
                write_out(data)
                message["offset"] = piece["offset"] + len(data)
                if piece["is_end"]:
                    return 0
        except UnavailableError as error:
            if is_early or not message["is_following"]:
                raise
            is_early = True
            say("hq-client", f"{error}; waiting (hq-client why {task})")
        except ConnectionError as error:
            call.session.close()
            if not values.get("follow") or not pauses:
                raise UnavailableError(f"the output broke off: {error}") from None
            say("hq-client", "the user-server went away; going on when it is back")
            time.sleep(pauses.pop(0))
