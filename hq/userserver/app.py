"""hq-user-server: the command line, and the one place where the parts are put together."""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import socket
import sys
import time
from urllib.parse import urlsplit

import msgspec

from hq import VERSION
from hq.errors import HqError, UnavailableError
from hq.kernel.backends import read_backends
from hq.kernel.clock import Clock, SystemClock
from hq.kernel.detach import Starting, detach
from hq.kernel.files import Lock, is_network_filesystem, lock_file, make_private_dir
from hq.kernel.keys import Sealer, Signer, public_in_hex
from hq.kernel.log import Log, open_log
from hq.kernel.loop import Loop, ThreadBackground
from hq.kernel.places import ClientConfig, find_etc, hq_home, keys_dir, read_client_config, user_run_dir
from hq.kernel.proofs import ssh_proof_command
from hq.kernel.turning import TurningPort
from hq.kernel.zmqbus import ZmqClient, ZmqServer
from hq.protocol.base import PROTOCOL
from hq.protocol.peers import PeerHello
from hq.userserver.access import AccessFile
from hq.userserver.door import Door
from hq.userserver.enrol import KeyEnroller
from hq.userserver.execs import ExecLinks
from hq.userserver.hosts import HostMemory, Routes
from hq.userserver.keepalive import Keepalive, carry_out
from hq.userserver.keyring import ExecKeys, load_keyring
from hq.userserver.ledger import LedgerFile
from hq.userserver.server import UserServer
from hq.userserver.spool import SubmissionSpool
from hq.userserver.starter import Starter
from hq.userserver.submit import Preparer, is_in_container
from hq.userserver.transports.base import Transports, TransportSettings
from hq.userserver.upstream import ServerLink

IDLE = 600.0
#: How often exec-servers and this user-server tell each other that they are there (seconds).
EXEC_HEARTBEAT = 5.0
#: Starts of exec-servers and other blocking calls at once.
WORKERS = 16
#: How long a second user-server waits for the first one, which is just starting.
START_WAIT = 20.0


def make_parser() -> argparse.ArgumentParser:
    """The options of hq-user-server."""
    parser = argparse.ArgumentParser(
        prog="hq-user-server", allow_abbrev=False,
        description="Your own part of hq: signs your jobs, starts your exec-servers. hq-submit and hq-client start it when they need it.",
    )  # fmt: skip
    parser.add_argument("--etc", metavar="DIR", help="the instance's etc directory (default: HQ_ETC, $HQPATH/etc, ~/.config/hq, /etc/hq)")
    parser.add_argument("-d", "--detach", action="store_true", help="go into the background; returns when it is up")
    parser.add_argument("--keepalive", action="store_true", help="do not stop when there is nothing to do")
    parser.add_argument("--idle", type=_seconds, default=IDLE, metavar="SECONDS", help="stop after so long with nothing to do (default: %(default)g)")
    parser.add_argument("--takeover", action="store_true", help="your user-server on another machine ends, this one takes its place")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="what is logged (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"hq-user-server {VERSION}")
    keep = parser.add_mutually_exclusive_group()
    for action, text in (("install", "keep it up over logouts"), ("remove", "do not keep it up any more")):
        keep.add_argument(f"--{action}-keepalive", dest="action", action="store_const", const=action, help=f"{text}, then end")
    keep.add_argument("--keepalive-status", dest="action", action="store_const", const="status", help="say whether it is kept up, then end")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1e8:
        raise ValueError(text)
    return value


def main(argv: list[str] | None = None) -> int:
    """Run it. Returns the exit code."""
    options = make_parser().parse_args(argv)
    try:
        config = read_client_config(find_etc(options.etc))
        if options.action:
            text, code = carry_out(keepalive_of(config), options.action)
            print(text, file=sys.stderr if code else sys.stdout)
            return code
        run_dir = make_private_dir(user_run_dir(config.instance))
    except HqError as error:
        print(f"hq-user-server: {error}", file=sys.stderr)
        return error.exit_code
    sock = os.path.join(run_dir, "client.sock")
    if accepts(sock):
        return 0
    # before threads and sockets are made: they do not survive a fork
    starting = detach() if options.detach else Starting()
    return run(config, run_dir, starting, idle=None if options.keepalive else options.idle, is_logged=options.detach, level=options.log_level,
               is_takeover=options.takeover)  # fmt: skip


def run(config: ClientConfig, run_dir: str, starting: Starting, *, idle: float | None, is_logged: bool, level: str = "INFO",
        is_takeover: bool = False) -> int:  # fmt: skip
    """Be the user-server until it ends. Returns the exit code."""
    sock = os.path.join(run_dir, "client.sock")
    try:
        try:
            lock = lock_file(os.path.join(run_dir, "lock"))
        except UnavailableError as error:
            # one is up, or is just starting
            if wait_for(sock, START_WAIT):
                starting.up()
                return 0
            raise UnavailableError(f"{error}, but nobody listens at {sock}") from None
        os.umask(0o077)
        log = open_log("user-server", make_private_dir(os.path.join(run_dir, "log")) if is_logged else None, level)
        if is_network_filesystem(run_dir):
            log.category("system").warning("%s is on a network file system; its lock may not hold", run_dir)
        # a mistake in it is told now, and not first when a host is needed
        read_backends(config.etc)
        server, loop = build(config, run_dir, log, SystemClock(), idle=idle, is_takeover=is_takeover)
    except (HqError, OSError) as error:
        place = f"{run_dir}: {error.strerror}; make room there or see to its rights, what runs goes on" if isinstance(error, OSError) else error
        starting.fail(f"hq-user-server: {place}", getattr(error, "exit_code", 1))
        return int(getattr(error, "exit_code", 1))
    starting.up()
    try:
        loop.run()
    except BaseException:
        log.category("system").exception("the user-server fell; exec-servers and runs go on")
        raise
    finally:
        _let_go(lock, log)
    return server.exit_code


def build(config: ClientConfig, run_dir: str, log: Log, clock: Clock, *, idle: float | None, is_takeover: bool = False) -> tuple[UserServer, Loop]:
    """Put the parts together, and open the socket. Raises HqError or OSError."""
    uid = os.getuid()
    user = pwd.getpwuid(uid).pw_name
    now = clock.now()
    keys_at = keys_dir(config.instance)
    keyring = load_keyring(keys_at)
    exec_keys = ExecKeys(keys_at)
    exec_keys.load()
    background = ThreadBackground(WORKERS)
    boot = secrets.token_hex(8)
    port = ZmqServer("tcp://0.0.0.0:0", keyring.public, keyring.secret)
    routes = Routes(port.port, config.userserver)
    name = routes.name
    enroller = KeyEnroller(
        keyring=keyring, user=user, instance=config.instance, enrol_socket=config.enrol_socket, home=pwd.getpwuid(uid).pw_dir,
        ssh_command=ssh_proof_command(config, program("hq-client"), public_in_hex(keyring.public), keyring.sign_public),
        token_places=(os.environ.get("HQ_TOKEN_FILE", ""), os.path.join(hq_home(), config.instance, "token")),
        background=background, log=log.category("keys"),
    )  # fmt: skip
    memory = HostMemory(os.path.join(run_dir, "hosts.json"), log.category("hosts"), allow_root=config.allow_root or (uid == 0 and is_in_container()))
    starter = Starter(
        transport=Transports(transport_settings(config, run_dir)), background=background, routes=routes, keys=exec_keys, keyring=keyring,
        memory=memory, instance=config.instance, user=user, heartbeat=EXEC_HEARTBEAT, server=(config.servers, config.server_key), backends=lambda: read_backends(config.etc),
    )  # fmt: skip
    execs = ExecLinks(
        port=port, starter=starter, memory=memory, log=log.category("hosts"), seed=secrets.randbits(32), heartbeat=EXEC_HEARTBEAT,
        ledger=LedgerFile(os.path.join(run_dir, "ledger"), log.category("ledger"), now), on_ended=lambda tasks: server.on_ended(tasks),
    )  # fmt: skip
    door = Door(log.category("clients"), uid)
    keepalive = keepalive_of(config)
    server = UserServer(
        instance=config.instance, user=user, uid=uid, etc=config.etc, address=f"{name}:{port.port}", server_address=" ".join(config.servers), door=door,
        port=port, keys=exec_keys, preparer=Preparer(config.instance, user, Signer(keyring.sign_secret), Sealer(keyring.seal_key)),
        spool=SubmissionSpool(os.path.join(run_dir, "spool"), log.category("clients")),
        background=background,
        access=AccessFile(os.path.join(hq_home(), config.instance, "access.json"), host=name, port=port.port, boot=boot, public=keyring.public),
        now=now, log=log.category, idle=idle, allow_root=config.allow_root, keepalive_sentence=keepalive.status, reopen_log=log.reopen,
    )  # fmt: skip
    client = TurningPort(config.servers, lambda each: ZmqClient(each, config.server_key, keyring.public, keyring.secret))
    hello = PeerHello(version=VERSION, protocol=PROTOCOL, boot=boot, machine=os.uname().nodename, address=server.address,
                      sign_public=keyring.sign_public, lock=lock_name(os.path.join(run_dir, "lock")))  # fmt: skip
    upstream = ServerLink(client, config.server, lambda: msgspec.structs.replace(hello, takeover=is_takeover and not upstream.was_in, last_job=execs.ledger.highest, told=execs.ledger.told), enroller, log.category("link"), now, on_message=server.on_message,
                          on_welcome=server.on_welcome, on_refused=server.on_refused)  # fmt: skip
    enroller.send = upstream.send_enrol
    there = urlsplit(config.server)
    background.run(upstream.looked_up, lambda: socket.getaddrinfo(there.hostname, there.port))
    server.connect(upstream, execs)
    loop = Loop(server, clock, [port, client], background)
    door.listen(os.path.join(run_dir, "client.sock"))
    loop.watch(door)
    log.category("system").info("hq-user-server %s of %s: %s, process %d", VERSION, user, server.address, os.getpid())
    return server, loop


def lock_name(path: str) -> str:
    """What names a lock file over all machines and starts of them: who holds it now is the only one. Empty if it cannot be told."""
    try:
        found = os.stat(path)
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}:{found.st_dev}:{found.st_ino}"
    except OSError:
        return ""


def transport_settings(config: ClientConfig, run_dir: str) -> TransportSettings:
    """How hosts are reached: the command is the one that the site names, else the one beside ours."""
    beside = program("hq-exec-server")
    return TransportSettings(
        run_dir=run_dir, local_exec_server=(sys.executable, beside), exec_server=(config.exec_server,) if config.exec_server else (beside,)
    )


def program(name: str) -> str:
    """The path of a command of this installation."""
    for folder in (os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(os.path.abspath(sys.executable))):
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return name


def keepalive_of(config: ClientConfig) -> Keepalive:
    """What keeps this user's user-server up."""
    command = [sys.executable, program("hq-user-server"), "--etc", config.etc]
    if os.environ.get("HQ_HOME"):
        # neither cron nor systemd knows it
        command = ["/usr/bin/env", f"HQ_HOME={hq_home()}", *command]
    return Keepalive(config.instance, pwd.getpwuid(os.getuid()).pw_name, command, os.path.join(hq_home(), config.instance, "keepalive"))


def accepts(path: str) -> bool:
    """Whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def wait_for(path: str, patience: float) -> bool:
    """Wait until somebody listens at a Unix socket, at most `patience` seconds."""
    end = time.monotonic() + patience
    while not accepts(path):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def _let_go(lock: Lock, log: Log) -> None:
    log.close()
    lock.release()
