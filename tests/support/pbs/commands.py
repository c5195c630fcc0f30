"""The commands and the server, one program: `commands.py NAME ARGS`. The folder is in STAND_IN, the dialect in its file `dialect`.

It keeps to what was recorded of the real ones (tests/golden): ids, exit statuses, words, states, XML or JSON. Standard library only.
"""

from __future__ import annotations

import fcntl
import getopt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

FOLDER = Path(os.environ.get("STAND_IN", "."))
QUEUES = ("batch", "slow")
Jobs = dict[str, dict[str, Any]]


@contextmanager
def queue() -> Iterator[dict[str, Any]]:
    """The queue, locked; written back if it was changed."""
    with open(FOLDER / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = FOLDER / "queue.json"
        state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"next": 0, "jobs": {}}
        before = json.dumps(state)
        yield state
        if json.dumps(state) != before:
            path.with_suffix(".new").write_text(json.dumps(state))
            path.with_suffix(".new").replace(path)


def fail(code: int, text: str) -> int:
    """An error as the real commands give it."""
    print(text, file=sys.stderr)
    return code


def is_openpbs() -> bool:
    """Which of the two is played."""
    return (FOLDER / "dialect").read_text() == "openpbs"


def qsub(argv: list[str]) -> int:
    """Take a job in."""
    options, rest = getopt.getopt(argv, "N:S:d:o:e:j:r:v:l:q:A:W:t:J:h")
    told: dict[str, list[str]] = {}
    for name, value in options:
        told.setdefault(name, []).append(value)
    name = told.get("-q", ["batch"])[0]
    if name not in QUEUES:
        return fail(*((170, "qsub: Unknown queue") if is_openpbs() else (172, "qsub: submit error (Unknown queue MSG=requested queue not found)")))
    words = ",".join(told.get("-l", []))
    cores = next((int(part.split("=")[1]) for part in words.replace(":", ",").split(",") if part.startswith(("ppn=", "ncpus="))), 1)
    wall = next((part.split("=")[1] for part in words.split(",") if part.startswith("walltime=")), "")
    seconds = sum(int(part) * unit for part, unit in zip(wall.split(":"), (3600, 60, 1), strict=True)) if wall else None
    indices = (told.get("-J" if is_openpbs() else "-t") or [""])[0]
    with queue() as state:
        number = state["next"]
        state["next"] += 1
        shape = {"name": told.get("-N", ["job"])[0], "script": Path(rest[0]).read_text(), "output": told.get("-o", ["/dev/null"])[0], "queue": name,
                 "variables": dict(part.partition("=")[::2] for part in ",".join(told.get("-v", [])).split(",") if part), "cores": cores,
                 "wall": seconds, "state": "H" if "-h" in told else "Q", "status": None, "node": "", "pid": 0, "began": 0.0}  # fmt: skip
        if indices:
            first, last = map(int, indices.partition("%")[0].split("-"))
            for index in range(first, last + 1):
                state["jobs"][f"{number}[{index}].srv"] = {**shape, "index": index}
        else:
            state["jobs"][f"{number}.srv"] = {**shape, "index": None}
    print(f"{number}{'[]' if indices else ''}.srv")
    return 0


def qstat(argv: list[str]) -> int:
    """Show the queue."""
    if argv == ["--version"]:
        print("pbs_version = 23.06.06" if is_openpbs() else "Version: master\nCommit: 34ff845", file=sys.stdout if is_openpbs() else sys.stderr)
        return 0
    if "-F" in argv and not is_openpbs():
        return fail(2, "qstat: invalid option -- 'F'")
    with queue() as state:
        jobs: Jobs = dict(state["jobs"])
    if is_openpbs():
        over = {"C": "F"}
        shown = {id: {"Job_Name": job["name"], "job_state": over.get(job["state"], job["state"]), "Hold_Types": "n", "exec_host": job["node"],
                      "Variable_List": job["variables"], **({} if job["status"] is None else {"Exit_status": job["status"]})}
                 for id, job in jobs.items()}  # fmt: skip
        print(json.dumps({"pbs_version": "23.06.06", "pbs_server": "srv", **({"Jobs": shown} if shown else {})}))
    elif jobs:
        parts = [
            f"<Job><Job_Id>{id}</Job_Id><Job_Name>{escape(job['name'])}</Job_Name><job_state>{job['state']}</job_state><queue>{job['queue']}</queue>"
            f"<exec_host>{job['node']}</exec_host><Hold_Types>n</Hold_Types>"
            f"<Variable_List>{escape(','.join(f'{name}={value}' for name, value in job['variables'].items()))}</Variable_List>"
            + ("" if job["status"] is None else f"<exit_status>{job['status']}</exit_status>") + "</Job>"
            for id, job in jobs.items()
        ]  # fmt: skip
        print(f"<?xml version=\"1.0\"?>\n<Data>{''.join(parts)}</Data>")
    return 0


def qdel(argv: list[str]) -> int:
    """End jobs."""
    code = 0
    with queue() as state:
        for id in argv:
            named = [each for each in state["jobs"] if each == id or each.replace(each.partition("[")[2].partition("]")[0], "", 1) == id]
            if not named:
                code = fail(153, f"qdel: nonexistent job id: {id}")
            for each in named:
                job = state["jobs"][each]
                if job["state"] == "C":
                    code = fail(170, f"qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE {each}")
                elif job["state"] == "R":
                    job["status"] = 271
                    kill(job["pid"], signal.SIGTERM)
                else:
                    job["state"], job["status"] = "C", 271
    return code


def qsig(argv: list[str]) -> int:
    """Signal jobs: the processes of their sessions, as pbs_mom does; only the first one can be told here."""
    assert argv[0] == "-s"
    with queue() as state:
        for id in argv[2:]:
            job = state["jobs"].get(id)
            if job is None or job["state"] != "R":
                return fail(153 if job is None else 170, f"qsig: Unknown Job Id {id}")
            os.kill(job["pid"], int(argv[1]))
    return 0


def hold(argv: list[str], before: str, after: str) -> int:
    """qhold and qrls."""
    with queue() as state:
        for id in argv:
            if id in state["jobs"] and state["jobs"][id]["state"] == before:
                state["jobs"][id]["state"] = after
    return 0


def kill(pid: int, number: int) -> None:
    """Signal a job's process group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass


def serve(cores: int) -> int:
    """The server and its one node: starts what fits, takes exit statuses, minds the walltime."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    warned: dict[str, float] = {}
    (FOLDER / "up").touch()
    while (FOLDER / "up").exists():
        with queue() as state:
            jobs: Jobs = state["jobs"]
            for id, process in list(running.items()):
                code = process.poll()
                job = jobs[id]
                if code is not None:
                    del running[id]
                    kill(process.pid, signal.SIGKILL)
                    job["state"] = "C"
                    job["status"] = job["status"] if job["status"] is not None else code if code >= 0 else 256 - code
                elif job["wall"] is not None and time.time() - job["began"] > job["wall"] and id not in warned:
                    warned[id] = time.time()
                    job["status"] = -29 if is_openpbs() else -11
                    kill(process.pid, signal.SIGTERM)
                elif job["status"] is not None and time.time() - warned.setdefault(id, time.time()) > 2:
                    kill(process.pid, signal.SIGKILL)
            free = cores - sum(jobs[id]["cores"] for id in running)
            for id, job in jobs.items():
                if job["state"] == "Q" and job["cores"] <= free and job["queue"] == "batch":
                    try:
                        running[id] = begin(id, job)
                        free -= job["cores"]
                    except OSError:  # its output cannot be opened
                        job["state"], job["status"] = "C", -1
        time.sleep(0.05)
    for process in running.values():
        kill(process.pid, signal.SIGKILL)
    return 0


def begin(id: str, job: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Run a job's script."""
    script = FOLDER / f"{id}.SC"
    script.write_text(job["script"])
    variables = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "PBS_JOBID": id, "PBS_ENVIRONMENT": "PBS_BATCH", **job["variables"]}
    if job["index"] is not None:
        variables["PBS_ARRAY_INDEX" if is_openpbs() else "PBS_ARRAYID"] = str(job["index"])
    with open(job["output"], "ab") as output:
        process = subprocess.Popen(["/bin/sh", str(script)], env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True, cwd="/")  # fmt: skip
    job.update(state="R", pid=process.pid, node="node1/0", began=time.time())
    return process


def main(argv: list[str]) -> int:
    """Play one command."""
    name, rest = argv[0], argv[1:]
    if name == "serve":
        return serve(int(rest[0]))
    if name != "qstat" or rest != ["--version"]:
        if not (FOLDER / "up").exists():
            return fail(162 if is_openpbs() else 111, f"Connection refused\n{name}: cannot connect to server srv (errno=111) Connection refused")
    if name in ("qhold", "qrls"):
        return hold(rest, *(("Q", "H") if name == "qhold" else ("H", "Q")))
    return {"qsub": qsub, "qstat": qstat, "qdel": qdel, "qsig": qsig}[name](rest)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
