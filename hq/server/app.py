"""hq-server the command: reads the instance, waits for the seat if it must, and is the active one until it ends or loses it."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from hq import VERSION
from hq.db.engine import advice, check_revision, open_engine
from hq.db.seat import SeatRows
from hq.db.store import Store
from hq.errors import DatabaseError, HqError, InputError, RefusedError, UnavailableError, UsageError
from hq.kernel.clock import SystemClock
from hq.kernel.config import ServerConfig, read_database_url, read_server_config
from hq.kernel.detach import Starting, detach
from hq.kernel.files import Lock, lock_file, read_secret
from hq.kernel.log import open_log
from hq.kernel.places import ClientConfig, find_etc, read_client_config
from hq.server.active import Place, be_active
from hq.server.configuration import read_configuration
from hq.server.standby import take_seat

PROGRAM = "hq-server"
#: Share of the failover time after which a database that does not answer a beat counts as away.
BEAT_PATIENCE = 0.5
#: Open files that hq-server asks for, if its hard limit gives so many.
FILES = 65536


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message} (see {PROGRAM} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(PROGRAM, description="Keeps users, hosts and jobs of one instance, and schedules. Needs no root.", allow_abbrev=False)
    parser.add_argument("-d", "--detach", action="store_true", help="go into the background; returns once hq-server listens, or says why it does not")
    parser.add_argument("--etc", metavar="DIR", help="the instance's etc directory (default: HQ_ETC, $HQPATH/etc, ~/.config/hq, /etc/hq)")
    parser.add_argument("-p", "--port", type=int, metavar="PORT", help="TCP port instead of the one in hq.yaml; 0 takes any free one")
    parser.add_argument("--standby", action="store_true",
                        help="while the instance's hq-server on another machine is active, wait, and take its place when it ends or dies (MariaDB, MySQL)")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run hq-server. Returns the exit code."""
    starting = Starting()
    try:
        options = _parser().parse_args(argv)
        if options.port is not None and not 0 <= options.port < 65536:
            raise UsageError(f"{options.port} is not a port: 0 to 65535")
        etc = os.path.abspath(find_etc(options.etc))
        if options.detach:
            starting = detach()
        return _serve(etc, options, starting)
    except HqError as error:
        starting.fail(f"{PROGRAM}: {error}", error.exit_code)
        return error.exit_code
    except Exception as error:
        starting.fail(f"{PROGRAM}: {type(error).__name__}: {error}")
        raise


def _want_files() -> None:
    """Raise the soft limit of open files: each user-server and exec-server that connects is one, and a login shell allows 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _serve(etc: str, options: argparse.Namespace, starting: Starting) -> int:
    _want_files()
    config = read_server_config(etc)
    client = read_client_config(etc)
    if client.instance != config.instance:
        raise InputError(f"hq.yaml names the instance {config.instance}, client.yaml {client.instance}: they must be the same", file=etc)
    read_configuration(etc, config)  # a bad file is told before anything is touched
    with ExitStack() as stack:
        lock = _lock(config)
        stack.callback(lock.release)
        public, secret = _keys(config, client)
        url = read_database_url(etc)
        engine = open_engine(url)
        stack.callback(engine.dispose)
        check_revision(engine)
        store = Store(engine)
        _check_instance(store, config)
        beating = open_engine(url, silence=BEAT_PATIENCE * config.failover)
        stack.callback(beating.dispose)
        rows = SeatRows(beating, f"{os.uname().nodename}:{config.var}"[:255])
        if options.standby and not rows.can_move:
            raise RefusedError("a standby needs a database that both machines reach (MariaDB or MySQL): an SQLite file is on this machine alone")
        os.makedirs(os.path.join(config.var, "log"), mode=0o700, exist_ok=True)
        log = open_log(PROGRAM, os.path.join(config.var, "log"), config.log_level, config.log_size, config.log_files)
        stack.callback(log.close)
        if (warning := advice(engine)) is not None:
            log.category("system").warning("%s", warning)
        wanted = config.port if options.port is None else options.port
        place = Place(etc, config, client, wanted, public, secret)
        clock = SystemClock()
        while True:
            seat = take_seat(place, rows, store, log, clock, starting, is_standby=options.standby)
            if seat is None:
                return 0
            try:
                server = be_active(place, rows, store, log, clock, starting, seat)
            except UnavailableError as error:
                if not options.standby or not starting.is_over:
                    raise
                log.category("system").error("hq-server could not become the active one, and stands by again: %s", error)
                continue
            if server.standing.is_lost and options.standby:
                continue
            if server.failure:
                print(f"{PROGRAM}: {server.failure}", file=sys.stderr)
            return 1 if server.failure else 0


def _lock(config: ServerConfig) -> Lock:
    directory = os.path.dirname(config.lock_path)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise InputError(f"the directory cannot be made: {error.strerror}", file=directory) from None
    try:
        return lock_file(config.lock_path)
    except UnavailableError as error:
        raise UnavailableError(f"an hq-server of the instance {config.instance} is running already: {error}") from None


def _keys(config: ServerConfig, client: ClientConfig) -> tuple[str, str]:
    directory = os.path.join(config.var, "keys")
    try:
        with open(os.path.join(directory, "curve.public"), encoding="ascii") as file:
            public = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the server's key cannot be read ({error}): hq-admin init makes an instance", file=directory) from None
    if public != client.server_key:
        raise InputError("server_key in client.yaml is not this server's key: put the text of curve.public there", file=directory)
    return public, read_secret(os.path.join(directory, "curve.secret"))


def _check_instance(store: Store, config: ServerConfig) -> None:
    found = store.setting("instance")
    if found is not None and found != config.instance:
        raise DatabaseError(f"the state database belongs to the instance {found}, hq.yaml names {config.instance}: correct hq-db.cfg or hq.yaml")


if __name__ == "__main__":
    raise SystemExit(main())
