"""Puts the backend of a synthetic host together, at the start of its exec-server."""

from __future__ import annotations

import os
import pwd
from logging import Logger

from hq.execserver.backends.dialect import Dialect
from hq.execserver.backends.slurm import Slurm
from hq.execserver.backends.torque import dialect_of
from hq.execserver.batch import BatchBackend
from hq.execserver.bootstrap import Bootstrap
from hq.execserver.commands import command_environment, run_command
from hq.kernel.daemon import Background
from hq.kernel.places import hq_home
from hq.model.batch import BatchSettings

#: `qstat --version` asks no server, so it answers at once or never.
VERSION_WITHIN = 10.0


def make_batch(told: Bootstrap, background: Background, log: Logger) -> BatchBackend:
    """The backend that the start line names. Its files lie in the user's HQ_HOME, which the nodes share."""
    settings = told.batch or BatchSettings()
    base = os.path.join(told.home or hq_home(), told.instance, "batch", told.host)
    return BatchBackend(choose_dialect(told.backend, settings), settings, told.host, base, pwd.getpwuid(os.geteuid()).pw_name, background, log)


def choose_dialect(backend: str, settings: BatchSettings) -> Dialect:
    """The dialect of a backend; torque is asked whether it is OpenPBS, unless the settings say it."""
    if backend == "slurm":
        return Slurm()
    version = None
    if settings.dialect == "auto":
        version = run_command(["qstat", "--version"], command_environment(settings), VERSION_WITHIN)
    return dialect_of(settings, version)
