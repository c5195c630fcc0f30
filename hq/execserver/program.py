"""Which program the worker is: that of the latest start dialogue, so that an upgrade brings a new worker while jobs run.

Standard library only: the supervisor reads it. The file lies in the run directory, which is the user's own (0700).
"""

from __future__ import annotations

import json
import os
import sys
from typing import NamedTuple

_FILE = "program"


class Program(NamedTuple):
    """A version of hq on this host: where its package is, and the Python that runs it."""

    version: str
    python: str
    path: str

    def argv(self, *words: str) -> list[str]:
        """How hq-exec-server of this program is started."""
        return [self.python, "-c", "from hq.execserver.main import main; raise SystemExit(main())", *words]

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """`base`, so that Python finds this program's package and nothing of the directory it is in."""
        return {**base, "PYTHONPATH": self.path, "PYTHONSAFEPATH": "1"}


def own_program(version: str) -> Program:
    """The one that runs this process."""
    return Program(version, sys.executable, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def save_program(run_dir: str, program: Program) -> None:
    """Name the program that the next worker is to be. Raises OSError."""
    path = os.path.join(run_dir, _FILE)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(program._asdict(), file)
    os.replace(path + ".new", path)


def load_program(run_dir: str) -> Program | None:
    """The program that was named last; None if there is none, or what stands there cannot be used."""
    try:
        with open(os.path.join(run_dir, _FILE), encoding="utf-8", errors="surrogateescape") as file:
            told = json.load(file)
        found = Program(str(told["version"]), str(told["python"]), str(told["path"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if os.access(found.python, os.X_OK) and os.path.isfile(os.path.join(found.path, "hq", "execserver", "main.py")) else None
