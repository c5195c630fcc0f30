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


def output_directory(spec: JobSpec, job: int, home: str) -> bytes:
    """Where output goes by default. The instance is part: two clusters of one user both have a job 1."""
    return os.path.join(os.fsencode(home), spec.instance.encode(), b"output", str(job).encode())


def run_paths(spec: JobSpec, key: TaskKey, host: str, home: str) -> RunPaths:
    """The paths of a task. `home` is the user's HQ_HOME: without a template output goes to TASK.out and .err in `output_directory`."""
    values = {
        b"job": str(key.job).encode(),
        b"task": str(key).encode(),
        b"index": b"" if key.index == PLAIN else str(key.index).encode(),
        b"name": clean_value(spec.name),
        b"host": clean_value(host),
        b"user": clean_value(spec.user),
    }

    def path(template: bytes) -> bytes:
        return os.path.join(spec.cwd, _PLACE.sub(lambda found: values[found[1]], template)) if template else b""

    logfile = path(spec.logfile)
    default = os.path.join(output_directory(spec, key.job, home), values[b"task"])
    stdout = path(spec.stdout) or logfile or default + b".out"
    stderr = path(spec.stderr) or logfile or default + b".err"
    is_default = not logfile and not (spec.stdout and spec.stderr)
    return RunPaths(spec.cwd, path(spec.stdin), stdout, stderr, logfile, is_default)
