"""Waiting for jobs: `hq-client wait` and `hq-submit --wait`. Watches until all have ended and gives the exit code of the worst."""

from __future__ import annotations

import time

from hq.client.entry import discard_output, say
from hq.client.progress import add_counts, add_to, describe, make_display
from hq.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from hq.client.connect import Session

SCHEMA = "hq.wait.1"

#: What a command returns for outcomes that are not the job's own exit code.
CODES = {"ok": 0, "timeout": 124, "refused": 126, "memory": 137, "cancelled": 1, "lost": 1}

#: Seconds before each attempt to find the user-server again.
PAUSES = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)

#: More jobs than this are summed up rather than listed.
MANY = 20


def exit_code_of(job: dict[str, Any]) -> int:
    """The exit code that a finished job stands for: the worst of its tasks."""
    codes = [0]
    for state, count in job["tasks"].items():
        outcome = state.partition(":")[2]
        if count and outcome in CODES:
            codes.append(CODES[outcome])
        elif count and outcome:
            # its own: 128+n where signal n ended it
            codes.append(job["exit_code"] or 1)
    if len(codes) == 1 and job.get("exit_code"):
        codes.append(job["exit_code"])
    return min(max(codes), 255)


def ranges_of(ids: Iterable[int]) -> list[list[int]]:
    """Ids as few ranges, first and last each."""
    ranges: list[list[int]] = []
    for id in sorted(ids):
        if ranges and id == ranges[-1][1] + 1:
            ranges[-1][1] = id
        else:
            ranges.append([id, id])
    return ranges


def name_of(job: dict[str, Any]) -> str:
    """What was waited for: `1234`, or where single tasks were named `1234_7`, `1234_1,3,5`."""
    only = ",".join(map(str, sorted(job.get("only", ()))))
    return f"{job['id']}_{only}" if only else str(job["id"])


def watch(session: Session, selection: dict[str, Any], is_quiet: bool) -> dict[int, dict[str, Any]]:
    """Watch until all selected jobs have finished; the last word about each. A lost connection is made again."""
    jobs: dict[int, dict[str, Any]] = {}
    total: dict[str, int] = {}
    display = make_display(is_quiet)
    pauses = list(PAUSES)
    try:
        while True:
            try:
                for message in session.stream({"type": "job.watch", "selection": selection}):
                    for job in message["jobs"]:
                        # by difference: summing all jobs up at each message would cost the square of their number
                        add_to(total, job["tasks"], 1)
                        if job["id"] in jobs:
                            add_to(total, jobs[job["id"]]["tasks"], -1)
                        jobs[job["id"]] = job
                    display.show(total)
                    if message.get("note"):
                        display.note(message["note"])
                    pauses = list(PAUSES)
                    if message["is_done"]:
                        session.close()
                        return jobs
            except (ConnectionError, UnavailableError) as error:
                session.close()
                if not pauses:
                    raise UnavailableError(f"{error}\nyour jobs run on without it; wait again later") from None
                if len(pauses) == len(PAUSES) - 1:
                    display.note(f"{error}; still trying")
                time.sleep(pauses.pop(0))
            if jobs:
                # `last` and `all` mean something else by now
                whole = [id for id, job in jobs.items() if not job.get("only")]
                tasks = [[id, index] for id, job in jobs.items() for index in job.get("only", ())]
                selection = {"ranges": ranges_of(whole), "tasks": tasks}
    finally:
        display.close()


def wait_for(session: Session, selection: dict[str, Any], program: str, *, is_quiet: bool = False, is_json: bool = False) -> int:
    """Wait for the selected jobs, say how they ended, and return the exit code of the worst. ^C leaves them running."""
    try:
        jobs = watch(session, selection, is_quiet or is_json)
    except KeyboardInterrupt:
        say(program, "waiting ended; the jobs run on (hq-client wait waits again, hq-client cancel ends them)")
        return 130
    codes = {id: exit_code_of(job) for id, job in jobs.items()}
    worst = max(codes.values(), default=0)
    try:
        if is_json:
            from hq.client.output import print_json

            print_json({"schema": SCHEMA, "jobs": list(jobs.values()), "exit_code": worst})
        elif not is_quiet:
            _report(jobs, codes)
    except BrokenPipeError:
        # `| grep -q submitted`: the exit code counts all the same
        discard_output()
    return worst


def _report(jobs: dict[int, dict[str, Any]], codes: dict[int, int]) -> None:
    from hq.model.text import printable

    shown = [id for id in sorted(jobs) if len(jobs) <= MANY or codes[id]]
    for id in shown[:MANY]:
        job = jobs[id]
        ended = describe(job["tasks"])
        ended = ended.removeprefix("1 ") if "," not in ended else ended
        code = f", exit code {codes[id]}" if codes[id] else ""
        reason = f" ({printable(job['reason'])})" if job.get("reason") and job["reason"] not in code else ""
        print(f"job {name_of(job)}: {ended}{code}{reason}")
    if len(jobs) > MANY:
        print(f"{len(jobs)} jobs: {describe(add_counts(list(jobs.values())))}")
    elif not jobs:
        print("there is nothing to wait for")
