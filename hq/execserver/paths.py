"""Where the streams of a run go: templates of the signed spec to absolute paths. Pure; it opens nothing.

Placeholders: {job} {task} {index} {name} {host} {user}. Values lose `/` and control characters; an unknown word in braces
stays as it is. Relative paths are relative to the job's working directory.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from hq.model.ids import PLAIN, TaskKey
from hq.model.job import JobSpec

_PLACE = re.compile(rb"\{(job|task|index|name|host|user)\}")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Absolute paths of one run. `stdin` and `logfile` may be empty: /dev/null, none. `is_default`: the output directory is ours to make."""

    cwd: bytes
    stdin: bytes
    stdout: bytes
    stderr: bytes
    logfile: bytes
    is_default: bool

    def of_stream(self, stream: str) -> bytes:
        """The file behind `stdout`, `stderr` or `log`; empty if there is none."""
        return {"stdout": self.stdout, "stderr": self.stderr, "log": self.logfile}.get(stream, b"")


def clean_value(text: str) -> bytes:
    """A value as it may stand in a path: no `/`, no control character, never `.` or `..`."""
    if text.isascii() and text.isalnum():
        return text.encode()
    kept = "".join(each for each in text if each not in "/\u2028\u2029" and (each.isprintable() or each > "\x9f"))
    return b"_" if kept in (".", "..") else kept.encode("utf-8", "surrogateescape")


def output_directory(spec: JobSpec, home: str) -> bytes:
    """Where output goes by default, in a directory for each job. The instance is part: two clusters of one user both have a job 1."""
    return os.path.join(os.fsencode(home), spec.instance.encode(), b"output")


class PathPlan:
    """The paths on one host of all jobs that differ in nothing that paths are made of, worked out once; a task adds its own names.

    `home` is the user's HQ_HOME. Without a template output goes to TASK.out and .err in the job's directory.
    """

    def __init__(self, spec: JobSpec, host: str, home: str) -> None:
        self._spec = spec
        known = {b"name": clean_value(spec.name), b"host": clean_value(host), b"user": clean_value(spec.user)}

        def plan(template: bytes) -> list[bytes]:
            """Fixed text and, at each odd place, `job`, `task` or `index`."""
            if not template:
                return []
            pieces = [os.path.join(spec.cwd, b"") if not template.startswith(b"/") and spec.cwd else b""]
            for place, piece in enumerate(_PLACE.split(template)):
                if place % 2 and piece not in known:
                    pieces += [piece, b""]
                else:
                    pieces[-1] += known[piece] if place % 2 else piece
            return pieces

        self._stdin, self._stdout, self._stderr, self._logfile = map(plan, (spec.stdin, spec.stdout, spec.stderr, spec.logfile))
        self._default = os.path.join(output_directory(spec, home), b"")
        self._is_default = not spec.logfile and not (spec.stdout and spec.stderr)

    def directory(self, job: int) -> bytes:
        """Where a job's output goes by default."""
        return self._default + b"%d" % job

    def of(self, key: TaskKey) -> RunPaths:
        """The paths of a task."""
        name, job = str(key).encode(), b"%d" % key.job
        default = b"%s%s/%s" % (self._default, job, name)

        def path(pieces: list[bytes]) -> bytes:
            if len(pieces) < 2:
                return pieces[0] if pieces else b""
            values = {b"job": job, b"task": name, b"index": b"" if key.index == PLAIN else b"%d" % key.index}
            return b"".join([values[piece] if place % 2 else piece for place, piece in enumerate(pieces)])

        logfile = path(self._logfile)
        stdout = path(self._stdout) or logfile or default + b".out"
        stderr = path(self._stderr) or logfile or default + b".err"
        return RunPaths(self._spec.cwd, path(self._stdin), stdout, stderr, logfile, self._is_default)


def run_paths(spec: JobSpec, key: TaskKey, host: str, home: str) -> RunPaths:
    """The paths of one task, see PathPlan."""
    return PathPlan(spec, host, home).of(key)
