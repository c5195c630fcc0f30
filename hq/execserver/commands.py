"""Runs one command of a batch system to its end or its deadline. Blocking: meant for background threads."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence

from hq.execserver.backends.dialect import CommandResult
from hq.model.batch import BatchSettings

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def command_environment(settings: BatchSettings) -> dict[str, str]:
    """What the commands see: little, for the batch system hands it on to its jobs."""
    entry = pwd.getpwuid(os.geteuid())
    path = f"{settings.path}:{_SYSTEM_PATH}" if settings.path else _SYSTEM_PATH
    return {"PATH": path, "HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "LC_ALL": "C", **settings.environment}


def run_command(argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> CommandResult:
    """Its exit status and words. After `timeout` seconds it is killed with all its children, and its code is None."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(environment), cwd="/", start_new_session=True,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        return CommandResult(127, "", f"{argv[0]} cannot be run: {error.strerror} (see 'path' in backends.yaml)")
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return CommandResult(None, "", "")
    return CommandResult(process.returncode, out, err)
