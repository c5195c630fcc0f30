"""A Torque or OpenPBS that is installed and running here, as tests have it: its own commands, each call noted.

It must let the tests' user submit (root: `qmgr -c "set server acl_roots += root@*"`), keep ended jobs for a minute (Torque:
`keep_completed`, OpenPBS: `job_history_enable`), and have as many free cores as this machine, or as HQ_TEST_PBS_CORES says.
"""

from __future__ import annotations

import os
import shutil
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
            command.write_text(f"#!/bin/sh\necho {name} \"$@\" >>{folder}/calls\nexec {shutil.which(name)} \"$@\"\n")
            command.chmod(0o755)

    def __enter__(self) -> RealPbs:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def calls(self, name: str) -> list[str]:
        """How a command was called, one line a call."""
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(f"{name} ")] if path.exists() else []
