"""`hq-submit`: read options, command and jobs file, ask the user-server, say what became of it."""

from __future__ import annotations

import os
import sys

from hq.client.connect import Session
from hq.client.entry import OutputError, discard_output, run, say
from hq.client.options import help_text, parse
from hq.client.request import Here, build_request
from hq.client.submit_options import DESCRIPTION, FOOTER, OPTIONS, USAGE
from hq.errors import HqError, RefusedError, UnavailableError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PROGRAM = "hq-submit"
SCHEMA = "hq.submitted.1"

#: Bytes of one message, roughly; more is sent in several, after all of them have been checked by a dry run.
BATCH_BYTES = 8 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    return run(PROGRAM, submit, argv)


def submit(argv: list[str]) -> int:
    """Submit what the arguments say. Raises HqError; nothing was submitted then, unless the message says what was."""
    values, words = parse(OPTIONS, argv, PROGRAM, is_ending_at_word=True)
    if "help" in values:
        print(help_text(USAGE, DESCRIPTION, OPTIONS, FOOTER))
        return 0
    if "version" in values:
        from hq import VERSION

        print(f"{PROGRAM} {VERSION}")
        return 0
    if "status" in values:
        if words:
            raise UsageError(f"-s/--status submits nothing; '{words[0]}' is one word too many (slots are -c/--slots, the shell is -S/--shell)")
        return show_status(values)
    requests = read_requests(values, words)
    session = Session.open(values.get("etc"))
    if values.get("verbose"):
        say(PROGRAM, f"instance {session.config.instance} in {session.config.etc}, {len(requests)} job(s)")
    items = send(session, requests, values)
    try:
        report(items, values)
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        # what is submitted stays submitted: its owner must not submit it again for want of an answer
        if not values.get("dry_run"):
            say(PROGRAM, f"submitted: {ids_text([item for item in items if item['id']]) or 'kept until hq-server is back'}")
        raise OutputError from error
    if not values.get("wait") or values.get("dry_run"):
        return 0
    if any(not item["id"] for item in items):
        raise UnavailableError("not waited for: jobs that are kept have no ids before hq-server has them (hq-client jobs shows them then)")
    from hq.client.waiting import wait_for

    tasks = [[item["id"], -1] for item in items]
    return wait_for(session, {"tasks": tasks}, PROGRAM, is_quiet="quiet" in values or "json" in values)


def read_requests(values: dict[str, Any], words: list[str]) -> list[dict[str, Any]]:
    """The jobs that are asked for. Raises UsageError or InputError."""
    here = Here.of_process()
    if "jobs_file" not in values:
        return [build_request(values, words, here)]
    if words or "script" in values:
        raise UsageError(f"with --jobs-file the commands stand in the file; '{words[0] if words else '--script'}' is one too many")
    from hq.client.jobsfile import read_jobs_file

    return read_jobs_file(values["jobs_file"], values, here)


def weight(request: dict[str, Any]) -> int:
    """Roughly the bytes of a request in JSON."""
    return 1000 + sum(map(len, request["env"])) + sum(map(len, request["argv"])) + 4 * len(request["env"]) + len(request.get("script", ""))


def batches(requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The requests in messages of about BATCH_BYTES."""
    made: list[list[dict[str, Any]]] = [[]]
    total = 0
    for request in requests:
        total += weight(request)
        if total > BATCH_BYTES and made[-1]:
            made.append([])
            total = weight(request)
        made[-1].append(request)
    return made


def send(session: Session, requests: list[dict[str, Any]], values: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask for the jobs, all or none; the accepted ones in order.

    One random key a command makes a repetition after a broken connection harmless. What is too much for one message is
    checked as a whole by a dry run before the first part is submitted.
    """
    key = os.urandom(16).hex()
    is_dry_run = bool(values.get("dry_run"))
    allow_root = bool(values.get("allow_root")) or session.config.allow_root
    parts = batches(requests)
    for is_rehearsal in [True, False] if len(parts) > 1 and not is_dry_run else [is_dry_run]:
        items: list[dict[str, Any]] = []
        for number, part in enumerate(parts):
            message = {
                "type": "job.ask", "key": f"{key}.{number}", "jobs": part, "is_dry_run": is_rehearsal, "allow_root": allow_root,
            }  # fmt: skip
            try:
                answer = session.ask(message)
                items += answer["items"]
                if answer.get("kept"):
                    say(PROGRAM, str(answer["kept"]))
            except HqError as error:
                text = str(error)
                if len(requests) > 1 and not isinstance(error, UnavailableError) and "line " not in text:
                    text = f"{values['jobs_file']}, line {culprit(session, message)}: {text}"
                if items and not is_rehearsal:
                    text += f"\nonly jobs {ids_text(items)} of the file were submitted"
                raise type(error)(text) if type(error) in (RefusedError, UsageError, UnavailableError) else error from None
    return items


def culprit(session: Session, message: dict[str, Any]) -> int:
    """The line of the first job that is refused, found by dry runs of halves."""
    suspects = message["jobs"]
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        try:
            session.ask({**message, "jobs": half, "is_dry_run": True})
            suspects = suspects[len(half) :]
        except (RefusedError, UsageError):
            suspects = half
    return int(suspects[0]["line"])


def ids_text(items: list[dict[str, Any]]) -> str:
    """Ids of accepted jobs, neighbours folded: `12-20, 25`."""
    ids = sorted(item["id"] for item in items)
    runs: list[list[int]] = []
    for each in ids:
        if runs and each == runs[-1][1] + 1:
            runs[-1][1] = each
        else:
            runs.append([each, each])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def report(items: list[dict[str, Any]], values: dict[str, Any]) -> None:
    """Say what was accepted; warnings go to stderr."""
    is_dry_run = bool(values.get("dry_run"))
    if "json" in values:
        import json

        jobs = [{"id": item["id"], "tasks": item["tasks"], "note": item.get("note", "")} for item in items]
        print(json.dumps({"schema": SCHEMA, "is_dry_run": is_dry_run, "jobs": jobs}))
        sys.stdout.flush()
        return
    if "quiet" in values:
        if not is_dry_run:
            print("".join(f"{item['id']}\n" for item in items if item["id"]), end="")
    elif is_dry_run:
        print(f"{len(items)} job(s) would be accepted; nothing was submitted")
    elif kept := sum(not item["id"] for item in items):
        print(f"{kept} job(s) kept until hq-server is back" + (f"; {ids_text(done)} submitted" if (done := [i for i in items if i["id"]]) else ""))
    elif len(items) == 1:
        tasks = items[0]["tasks"]
        print(f"job {items[0]['id']} submitted" + (f": {tasks} tasks" if tasks > 1 else ""))
    else:
        print(f"{len(items)} jobs submitted: {ids_text(items)}")
    sys.stdout.flush()
    notes = dict.fromkeys((f"job {item['id']}: " if item["id"] and len(items) > 1 else "") + item["note"] for item in items if item.get("note"))
    for note in notes:
        if is_dry_run:
            print(note)
        else:
            say(PROGRAM, note)


def show_status(values: dict[str, Any]) -> int:
    """`-s`: the status of the user-server, as hQ had it."""
    from hq.client.output import print_facts

    facts = Session.open(values.get("etc"), may_start=False).ask({"type": "peer.ask", "what": "status"})["facts"]
    print_facts(facts, values)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
