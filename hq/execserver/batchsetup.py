"""Puts the backend of a synthetic host together, at the start of its exec-server."""

from __future__ import annotations

import json
import os
import pwd
from logging import Logger
from typing import NamedTuple

import msgspec

from hq.errors import InputError
from hq.execserver.backends.dialect import Dialect
from hq.execserver.backends.slurm import Slurm
from hq.execserver.backends.torque import dialect_of
from hq.execserver.batch import BatchBackend
from hq.execserver.batchcentre import Centre
from hq.execserver.bootstrap import Bootstrap
from hq.execserver.commands import command_environment, run_command
from hq.execserver.pilotfleet import PilotFleet
from hq.execserver.pilotrelay import PilotRelay
from hq.execserver.pilots import PilotBackend
from hq.kernel.files import make_private_dir, read_secret, write_secret
from hq.kernel.keys import make_curve_pair
from hq.kernel.loop import ThreadBackground
from hq.kernel.places import hq_home
from hq.kernel.zmqbus import ZmqServer, own_host_name, reachable_address
from hq.model.batch import BatchSettings

#: `qstat --version` asks no server, so it answers at once or never.
VERSION_WITHIN = 10.0


class Made(NamedTuple):
    """The backend, and what the loop waits for on its behalf."""

    backend: BatchBackend | PilotBackend
    backgrounds: tuple[ThreadBackground, ...]
    ports: tuple[ZmqServer, ...]


def make_batch(told: Bootstrap, log: Logger) -> Made:
    """The backend that the start line names. Its files lie in the user's HQ_HOME, which the nodes share. Raises HqError."""
    settings = told.batch or BatchSettings()
    home = os.path.join(told.home or hq_home(), told.instance)
    dialect = choose_dialect(told.backend, settings)
    user = pwd.getpwuid(os.geteuid()).pw_name
    background = ThreadBackground(4)
    forward = BatchBackend(dialect, settings, told.host, os.path.join(home, "batch", told.host), user, background, log)
    if not settings.pilot_limit:
        return Made(forward, (background,), ())
    base = make_private_dir(os.path.join(home, "pilots", told.host))
    public, port = relay_port(os.path.join(base, "relay.json"))
    other = ThreadBackground(2)
    names = dict.fromkeys((own_host_name(), "127.0.0.1"))
    upstreams = tuple(reachable_address(name, port.port) for name in names)
    centre = Centre(dialect, settings, user, other, log, forward.centre)
    fleet = PilotFleet(centre, settings, base, msgspec.structs.replace(told, home=told.home or hq_home()), upstreams, public, log)
    return Made(PilotBackend(forward, fleet, PilotRelay(port, told.host, log), settings, log), (background, other), (port,))


def relay_port(path: str) -> tuple[str, ZmqServer]:
    """The public key and the port to which pilots dial: the same as before if there was one, for pilots may be on their way."""
    try:
        known = json.loads(read_secret(path))
        return known["public"], ZmqServer(f"tcp://0.0.0.0:{known['port']}", known["public"], known["secret"])
    except InputError:
        public, secret = make_curve_pair()
        port = ZmqServer("tcp://0.0.0.0:0", public, secret)
        write_secret(path, json.dumps({"public": public, "secret": secret, "port": port.port}))
        return public, port


def choose_dialect(backend: str, settings: BatchSettings) -> Dialect:
    """The dialect of a backend; torque is asked whether it is OpenPBS, unless the settings say it."""
    if backend == "slurm":
        return Slurm()
    version = None
    if settings.dialect == "auto":
        version = run_command(["qstat", "--version"], command_environment(settings), VERSION_WITHIN)
    return dialect_of(settings, version)
