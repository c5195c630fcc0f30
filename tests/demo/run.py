"""`make demo`: a whole hq on this machine, in a folder of its own, shown as a user sees it.

Makes an instance on SQLite with this machine as its host, submits real work, shows listings and outputs, checks every
outcome, stops everything it started. Exit code 0 only if all is as it should be. Not a test: the tests look much closer.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.wait import until

BIN = Path(sys.executable).parent
SLOTS = max(2, os.cpu_count() or 2)


class Failed(Exception):
    """Something is not as it should be."""


class Stage:
    """The demo's folder, its environment, and the commands as a user types them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance = folder / "instance"
        self.work = folder / "work"
        self.work.mkdir()
        self.environment = {
            **os.environ,
            "HQ_ETC": str(self.instance / "etc"),
            "HQ_HOME": str(folder / "home"),
            "PATH": f"{BIN}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        }

    def run(self, *words: str, code: int | None = 0, is_shown: bool = True) -> str:
        """Run a command in the work folder; raises Failed if it does not return `code` (None: any)."""
        if is_shown:
            print(f"\n$ {shlex.join(words)}", flush=True)
        done = subprocess.run(words, cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if is_shown:
            print(done.stdout + done.stderr, end="", flush=True)
        if code is not None and done.returncode != code:
            raise Failed(f"{shlex.join(words)} returned {done.returncode} instead of {code}: {done.stderr.strip()}")
        return done.stdout

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """The rows of a listing."""
        found = json.loads(self.run("hq-client", "jobs", *words, "--json", is_shown=False))
        rows: list[dict[str, Any]] = found["rows"]
        return rows

    def expect(self, job: str, **wanted: object) -> None:
        """Check some fields of a job's row."""
        row = self.rows(job)[0]
        for name, value in wanted.items():
            if row[name] != value:
                raise Failed(f"job {job}: {name} is {row[name]!r}, not {value!r} ({row['reason']})")


def play(stage: Stage) -> None:
    """The demo itself."""
    root = ["--allow-root"] if os.geteuid() == 0 else []
    host = socket.gethostname().split(".")[0]
    stage.run("hq-admin", "init", str(stage.instance), "--host", f"{host}:{SLOTS}:local")
    stage.run("hq-server", "-d")

    print("\n--- a one-liner, and its output")
    one = stage.run("hq-submit", "-q", *root, "--name", "hello", 'echo "hello from $HQ_HOST, job $HQ_JOB_ID"').strip()
    stage.run("hq-client", "wait", one)
    if "hello from" not in stage.run("hq-client", "log", one):
        raise Failed(f"the output of job {one} is not what it wrote")

    print("\n--- an array of 200")
    array = stage.run("hq-submit", "-q", *root, "--name", "squares", "--array", "1-200", "echo $((HQ_ARRAY_INDEX * HQ_ARRAY_INDEX))").strip()
    stage.run("hq-client", "wait", array)
    if stage.run("hq-client", "log", f"{array}_12").strip() != "144":
        raise Failed("task 12 of the array did not write 144")

    print("\n--- a job that fails, and one that is cancelled while it runs")
    bad = stage.run("hq-submit", "-q", *root, "--name", "fails", "echo oh dear >&2; exit 3").strip()
    stage.run("hq-client", "wait", bad, code=3)
    long = stage.run("hq-submit", "-q", *root, "--name", "endless", "sleep 600").strip()
    until(lambda: stage.rows(long)[0]["state"] == "running", what=f"job {long} to run")
    stage.run("hq-client", "cancel", long)
    stage.run("hq-client", "wait", long, code=None)

    print("\n--- as the user and as the owner of the cluster see it")
    stage.run("hq-client", "jobs")
    stage.run("hq-client", "why", bad)
    stage.run("hq-client", "status")
    stage.run("hq-admin", "lscluster")

    stage.expect(one, state="finished", outcome="ok", exit_code=0)
    stage.expect(array, state="finished", outcome="ok")
    if stage.rows(array)[0]["tasks"].get("finished:ok") != 200:
        raise Failed(f"the array's tasks: {stage.rows(array)[0]['tasks']}")
    stage.expect(bad, state="finished", outcome="failed", exit_code=3)
    stage.expect(long, state="finished", outcome="cancelled")


def stop(stage: Stage) -> None:
    """Stop all daemons that the demo started."""
    if not (stage.instance / "etc").exists():
        return
    stage.run("hq-client", "shutdown", "--hosts", code=None, is_shown=False)
    stage.run("hq-admin", "shutdown", code=None, is_shown=False)


def main() -> int:
    """Run the demo in a temporary folder; the folder stays, with the logs, if it fails."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="hq-demo-"))
    stage = Stage(folder)
    try:
        try:
            play(stage)
        finally:
            stop(stage)
    except (Failed, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"\nThe demo failed: {error}\nWhat is left of it is in {folder}.", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print(f"\nAll outcomes are as they should be ({time.monotonic() - began:.1f} s). Everything that was started has been stopped.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
