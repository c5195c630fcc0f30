"""Running the commands of hq in tests as a person would, as one user or another, and looking at processes."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.install import readable_install, readable_python
from tests.support.users import run_as, start_as

__all__ = ["Command", "Result", "end_process", "is_running", "readable_install", "readable_python"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended: exit code (negative: signal) and what it printed, undecodable bytes kept as surrogates."""

    argv: tuple[str, ...]
    rc: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)

    def ok(self) -> Result:
        """Itself. Raises AssertionError with all that it said if it failed."""
        assert self.rc == 0, f"{' '.join(self.argv)}: exit code {self.rc}\n{self.out}\n{self.err}"
        return self


@dataclass(frozen=True, slots=True)
class Command:
    """Commands of the installation in `bin_dir`, run as `user` with a login's environment and `env` (HQ_ETC, HQ_HOME …)."""

    bin_dir: Path
    user: str = field(default_factory=lambda: pwd.getpwuid(os.geteuid()).pw_name)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def __call__(self, name: str, *args: str, stdin: bytes = b"", timeout: float = 60, cwd: Path | None = None) -> Result:
        """Run `name` (a command of ours, or a path) to its end."""
        argv = self.argv(name, *args)
        done = run_as(self.user, argv, bin_dir=self.bin_dir, env=self.env, cwd=cwd or self.cwd, stdin=stdin, timeout=timeout)
        decode = "surrogateescape"
        return Result(tuple(argv), done.returncode, done.stdout.decode(errors=decode), done.stderr.decode(errors=decode))

    def start(self, name: str, *args: str, cwd: Path | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start it, with pipes for its output unless told otherwise. The caller ends it."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return start_as(self.user, self.argv(name, *args), bin_dir=self.bin_dir, env=self.env, cwd=cwd or self.cwd, **options)

    def argv(self, name: str, *args: str) -> list[str]:
        """The words that are executed."""
        return [name if "/" in name else str(self.bin_dir / name), *args]

    def having(self, **env: str) -> Command:
        """The same with more in the environment."""
        return Command(self.bin_dir, self.user, {**self.env, **env}, self.cwd)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_process(process: subprocess.Popen[bytes], grace: float = 10) -> int:
    """End a process that the test started: TERM, and KILL if that does not do. Its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    code = process.wait(grace)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return code
