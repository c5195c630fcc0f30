"""What the bench does as a user: run by an installation's Python as that user, with HQ_ETC set. Prints one line of JSON.

`accept N`, `separate N`, `latency N`, `cli N`, `array N [WHEN]` (CLOCK_MONOTONIC, so that many can begin at once). Needs hq.client and the standard library alone, so that it can be copied anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from hq.client.api import Client
from hq.client.connect import Session
from hq.client.request import Here, build_request


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """A submission of one job."""
    return {"type": "job.ask", "key": os.urandom(16).hex(), "jobs": [request], "is_dry_run": False, "allow_root": os.geteuid() == 0}


def wait(session: Session, selection: dict[str, Any]) -> None:
    """Until all of it has ended."""
    for message in session.stream({"type": "job.watch", "selection": selection}):
        if message["is_done"]:
            break
    session.close()


def accept(count: int) -> dict[str, float]:
    """So many jobs, each a request of its own, over one connection, until all are accepted. CPU of this process in µs a job."""
    with Client() as hq:
        begin, used = time.monotonic(), time.process_time()
        jobs = [hq.submit(["/bin/true"]) for _ in range(count)]
        hq.flush()
        took = time.monotonic() - begin
        assert len({job.id for job in jobs}) == count
    return {"accepted": count / took, "client": 1e6 * (time.process_time() - used) / count}


def separate(count: int) -> dict[str, float]:
    """The same, until all have ended."""
    with Client() as hq:
        begin = time.monotonic()
        jobs = [hq.submit(["/bin/true"]) for _ in range(count)]
        hq.flush()
        accepted = time.monotonic() - begin
        assert hq.wait(jobs) == 0
        return {"accepted": count / accepted, "done": count / (time.monotonic() - begin)}


def array(count: int, when: float = 0.0) -> dict[str, float]:
    """One array; until all is finished. `when`: not to be submitted before."""
    session = Session.open()
    time.sleep(max(0.0, when - time.monotonic()))
    begin = time.monotonic()
    answer = session.ask(ask(build_request({"array": (f"1-{count}", None)}, ["/bin/true"], Here.of_process())))
    wait(session, {"tasks": [[answer["items"][0]["id"], -1]]})
    end = time.monotonic()
    return {"done": count / (end - begin), "begin": begin, "end": end}


def percentile(values: list[float], share: float) -> float:
    """The value below which so much lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def latency(count: int) -> dict[str, float]:
    """From the submission of one job to the word that it has finished, again and again; beside it, a shell that does the same."""
    session = Session.open()
    request = build_request({}, ["/bin/true"], Here.of_process())
    took, shell = [], []
    for _ in range(count):
        begin = time.monotonic()
        answer = session.ask(ask(request))
        wait(session, {"tasks": [[answer["items"][0]["id"], -1]]})
        took.append(1000 * (time.monotonic() - begin))
        begin = time.monotonic()
        subprocess.run(["/bin/sh", "-c", "true"], check=True)
        shell.append(1000 * (time.monotonic() - begin))
        time.sleep(0.05)
    return {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "shell": percentile(shell, 0.5)}


def cli(count: int, hq_submit: str) -> dict[str, float]:
    """Wall time of the command, and of a Python that does nothing, in turn."""
    took, python = [], []
    for _ in range(count):
        for argv, times in (([hq_submit, "-q", "true"], took), ([sys.executable, "-I", "-c", "pass"], python)):
            begin = time.monotonic()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            times.append(1000 * (time.monotonic() - begin))
    return {"ms": percentile(took, 0.5), "python": percentile(python, 0.5)}


def main() -> None:
    """The command."""
    what, count = sys.argv[1], int(sys.argv[2])
    if what == "cli":
        found = cli(count, sys.argv[3])
    elif what == "array":
        found = array(count, *map(float, sys.argv[3:]))
    else:
        found = {"accept": accept, "separate": separate, "latency": latency}[what](count)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
