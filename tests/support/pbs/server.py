"""The stand-in as a test has it: a folder of commands, a server that is started and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.wait import until

_PROGRAM = Path(__file__).with_name("commands.py")


class StandIn:
    """`bin` is the folder of qsub, qstat, qdel, qsig, qhold, qrls. A context manager: the server is up inside."""

    def __init__(self, folder: Path, dialect: str, cores: int = 16) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.cores = cores
        (folder / "dialect").write_text(dialect)
        for name in ("qsub", "qstat", "qdel", "qsig", "qhold", "qrls"):
            command = self.bin / name
            command.write_text(f"#!/bin/sh\necho {name} \"$@\" >>{folder}/calls\nSTAND_IN={folder} exec {sys.executable} -S -E {_PROGRAM} {name} \"$@\"\n")
            command.chmod(0o755)
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server."""
        self._server = subprocess.Popen([sys.executable, "-S", "-E", str(_PROGRAM), "serve", str(self.cores)], env={**os.environ, "STAND_IN": str(self.folder)})
        until((self.folder / "up").exists, 20, "the stand-in's server")

    def stop(self) -> None:
        """End it, and the jobs that it runs."""
        (self.folder / "up").unlink(missing_ok=True)
        if self._server is not None:
            self._server.wait(20)
            self._server = None

    def calls(self, name: str) -> list[str]:
        """How a command was called, one line a call."""
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(f"{name} ")] if path.exists() else []
