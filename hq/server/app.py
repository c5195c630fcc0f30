"""hq-server the command: reads the instance, puts the parts together, runs the loop. The only place that knows all parts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from hq import VERSION
from hq.db.engine import advice, check_revision, open_engine
from hq.db.store import Store
from hq.db.writer import Writer
from hq.errors import DatabaseError, HqError, InputError, UnavailableError, UsageError
from hq.kernel.clock import SystemClock
from hq.kernel.config import ServerConfig, read_database_url, read_server_config
from hq.kernel.detach import Starting, detach
from hq.kernel.files import Lock, lock_file, read_secret
from hq.kernel.log import open_log
from hq.kernel.loop import Loop, ThreadBackground
from hq.kernel.places import ClientConfig, find_etc, read_client_config
from hq.kernel.zmqbus import ZmqServer
from hq.server.configuration import read_configuration, write_server_address
from hq.server.daemon import Server
from hq.server.enrolsocket import EnrolSocket
from hq.server.notify import notify

PROGRAM = "hq-server"
WORKERS = 8


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message} (see {PROGRAM} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(PROGRAM, description="Keeps users, hosts and jobs of one instance, and schedules. Needs no root.", allow_abbrev=False)
    parser.add_argument("-d", "--detach", action="store_true", help="go into the background; returns once hq-server listens, or says why it does not")
    parser.add_argument("--etc", metavar="DIR", help="the instance's etc directory (default: HQ_ETC, $HQPATH/etc, ~/.config/hq, /etc/hq)")
    parser.add_argument("-p", "--port", type=int, metavar="PORT", help="TCP port instead of the one in hq.yaml; 0 takes any free one")
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
        return _serve(etc, options.port, starting)
    except HqError as error:
        starting.fail(f"{PROGRAM}: {error}", error.exit_code)
        return error.exit_code
    except Exception as error:
        starting.fail(f"{PROGRAM}: {type(error).__name__}: {error}")
        raise


def _serve(etc: str, port_option: int | None, starting: Starting) -> int:
    config = read_server_config(etc)
    client = read_client_config(etc)
    if client.instance != config.instance:
        raise InputError(f"hq.yaml names the instance {config.instance}, client.yaml {client.instance}: they must be the same", file=etc)
    read_configuration(etc)  # a bad file is told before anything is touched
    with ExitStack() as stack:
        lock = _lock(config)
        stack.callback(lock.release)
        public, secret = _keys(config, client)
        engine = open_engine(read_database_url(etc))
        stack.callback(engine.dispose)
        check_revision(engine)
        store = Store(engine)
        _check_instance(store, config)
        os.makedirs(os.path.join(config.var, "log"), mode=0o700, exist_ok=True)
        log = open_log(PROGRAM, os.path.join(config.var, "log"), config.log_level, config.log_size, config.log_files)
        stack.callback(log.close)
        wanted = config.port if port_option is None else port_option
        port = ZmqServer(f"tcp://{config.bind}:{wanted}", public, secret)
        stack.callback(port.close)
        enrol = EnrolSocket(_socket_place(client.enrol_socket))
        stack.callback(enrol.close)
        system = log.category("system")
        if (warning := advice(engine)) is not None:
            system.warning("%s", warning)
        address = f"{client.server.rpartition(':')[0]}:{port.port}"
        if write_server_address(etc, address):
            system.warning("client.yaml says %s now: users need the new file", address)
        loops: list[Loop] = []
        epoch = store.take_over()

        def wake() -> None:
            for each in loops:
                each.wake()

        writer = Writer(store, wake, epoch)
        stack.callback(writer.close)
        clock, background = SystemClock(), ThreadBackground(WORKERS)
        server = Server(instance=config.instance, etc=etc, config=config, port=port, store=store, writer=writer, background=background,
                        log=log, now=clock.now(), epoch=epoch, enrol=enrol)  # fmt: skip
        loop = Loop(server, clock, [port], background)
        stack.callback(loop.close)
        loops.append(loop)
        loop.watch(enrol)
        system.info("hq-server %s of %s listens at port %d, process %d", VERSION, config.instance, port.port, os.getpid())
        if sys.stderr.isatty():
            print(f"{PROGRAM}: {config.instance} listens at {config.bind}:{port.port}", file=sys.stderr)

        def announce() -> None:
            notify(f"READY=1\nMAINPID={os.getpid()}")
            starting.up()

        # in the first tick: only then signals are taken by the loop, and whoever waits for us may send one at once
        server.when_settled(None, announce)
        loop.run()
        notify("STOPPING=1")
        system.info("hq-server stops%s", f": {server.failure}" if server.failure else "")
        if server.failure:
            print(f"{PROGRAM}: {server.failure}", file=sys.stderr)
        return 1 if server.failure else 0


def _lock(config: ServerConfig) -> Lock:
    directory = os.path.join(config.var, "run")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise InputError(f"the directory cannot be made: {error.strerror}", file=directory) from None
    try:
        return lock_file(os.path.join(directory, "hq-server.lock"))
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
    found = store.load().settings.get("instance")
    if found is not None and found != config.instance:
        raise DatabaseError(f"the state database belongs to the instance {found}, hq.yaml names {config.instance}: correct hq-db.cfg or hq.yaml")


def _socket_place(path: str) -> str:
    """The path of the enrolment socket, its directory made, and open to pass through: who speaks is asked of the kernel."""
    directory = os.path.dirname(path)
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o711)
    except OSError as error:
        raise InputError(f"the directory cannot be made: {error.strerror}", file=directory) from None
    return path


if __name__ == "__main__":
    raise SystemExit(main())
