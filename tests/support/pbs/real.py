"""A Torque or OpenPBS that is installed and running here, as tests have it: its own commands, each call noted.

It must let the tests' user submit (root: `qmgr -c "set server acl_roots += root@*"`), keep ended jobs for a minute (Torque:
`keep_completed`, OpenPBS: `job_history_enable`), and have as many free cores as this machine, or as HQ_TEST_PBS_CORES says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_COMMANDS = ("qsub", "qstat", "qdel", "qsig", "qhold", "qrls")


def is_here() -> bool:
    """Whether there is one on PATH."""
    return all(map(shutil.which, _COMMANDS))


class RealPbs:
    """As `server.StandIn`, but for starting and stopping: it is not ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.cores = int(os.environ.get("HQ_TEST_PBS_CORES", "0")) or os.cpu_count() or 1
        for name in _COMMANDS:
            command = self.bin / name
            run = f"exec {shutil.which(name)} \"$@\"" if name != "qsub" else f"{shutil.which(name)} \"$@\" >{folder}/id.$$ || exit $?\ncat {folder}/id.$$"
            command.write_text(f"#!/bin/sh\necho {name} \"$@\" >>{folder}/calls\n{run}\n")
            command.chmod(0o755)

    def __enter__(self) -> RealPbs:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete what is left of this test's jobs: the next one needs the cores."""
        for file in self.folder.glob("id.*"):
            subprocess.run(["qdel", *file.read_text().split()[-1:]], check=False, capture_output=True, timeout=60)

    def calls(self, name: str) -> list[str]:
        """How a command was called, one line a call."""
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(f"{name} ")] if path.exists() else []
