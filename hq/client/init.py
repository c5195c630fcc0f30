"""`hq-admin init DIR`: a ready instance in one command, or nothing at all.

The tables are made by hq-dbadmin in a process of its own: the client does not know the database.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import NoReturn

from hq.client import samples
from hq.errors import HqError, InputError, RefusedError, UsageError
from hq.kernel.clustertab import parse_cluster_tab
from hq.kernel.config import sample_server_config
from hq.kernel.files import is_network_filesystem, make_private_dir, write_secret
from hq.kernel.keys import make_curve_pair
from hq.kernel.places import keys_dir, read_client_config
from hq.kernel.zmqbus import own_host_name, reachable_address
from hq.model.host import HostSpec
from hq.model.user import parse_user_name

#: sun_path of a Unix socket has 108 bytes, one of them the end.
MAX_SOCKET_PATH = 107
#: Below the ports that the kernel gives to outgoing connections, so that nobody has taken it when the server starts.
PORTS = range(20000, 32000)
TABLES_TIMEOUT = 300.0

_HOST = re.compile(r"([^:]+):([0-9]{1,7})(?::([a-z]+))?", re.ASCII)


class _Parser(argparse.ArgumentParser):
    """One line on stderr instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see hq-admin init --help")


def init_main(argv: list[str]) -> int:
    """Make an instance as the words ask; returns 0. Raises HqError, and then nothing is left of it."""
    parser = _Parser(prog="hq-admin init", allow_abbrev=False, description="Make an instance of hq: configuration, keys, state database; you become its administrator.")
    parser.add_argument("directory", metavar="DIR", help="where it goes: DIR/etc and DIR/var, on a local disk")
    parser.add_argument("--host", metavar="NAME:SLOTS[:local|ssh|openssh]", action="append", default=[], help="a host of the cluster; may be repeated (default: this machine with all its cores)")
    parser.add_argument("--db", metavar="URL", help="state database, as mysql+pymysql://USER:PASSWORD@HOST/NAME; - reads the URL from standard input (default: SQLite in DIR/var)")
    parser.add_argument("--port", metavar="N", type=int, help="TCP port of hq-server (default: a free one is chosen)")
    words = parser.parse_args(argv)
    plan = _plan(words.directory, words.host, words.db, words.port)
    _make(plan)
    print(f"The instance {plan.instance} is in {plan.directory}, {plan.user} is its administrator.")
    print(f"Now:  export HQ_ETC={shlex.quote(plan.etc)}\n      hq-server -d")
    return 0


@dataclass(slots=True)
class _Plan:
    """What is to be made. `made` is what was, to be undone."""

    directory: str
    instance: str
    user: str
    hosts: tuple[HostSpec, ...]
    url: str
    port: int
    is_local: bool
    made: list[str] = field(default_factory=list)

    @property
    def etc(self) -> str:
        return os.path.join(self.directory, "etc")

    @property
    def var(self) -> str:
        return os.path.join(self.directory, "var")


def _plan(directory: str, hosts: list[str], url: str | None, port: int | None) -> _Plan:
    """Check everything that can be checked before anything is made."""
    directory = os.path.abspath(directory)
    # the path stands in client.yaml in quotes, and in the URL of SQLite, where ? begins the options
    if any(ord(each) < 32 or each in "'?" for each in directory):
        raise InputError(f"{directory!r}: a path without quotes, question marks and control characters is needed")
    for name in ("etc", "var"):
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            raise RefusedError(f"{path} exists: an instance is made in a new or empty directory, and an existing one is never touched")
    enrol_socket = os.path.join(directory, "var", "run", "enrol.sock")
    if len(os.fsencode(enrol_socket)) > MAX_SOCKET_PATH:
        raise InputError(f"{directory} is too long: a Unix socket's path {enrol_socket} may have {MAX_SOCKET_PATH} bytes")
    if url == "-":
        url = sys.stdin.readline().strip()
    if url is None:
        if is_network_filesystem(directory):
            raise RefusedError(f"{directory} is on a network file system, where SQLite loses data: choose a local disk, or --db with MariaDB")
        url = "sqlite:///" + os.path.join(directory, "var", "state.db")
    for short in ("mysql://", "mariadb://"):
        if url.startswith(short):
            url = "mysql+pymysql://" + url.removeprefix(short)
    if "://" not in url or any(ord(each) < 32 for each in url):
        raise InputError("--db: expected is a URL such as mysql+pymysql://USER:PASSWORD@HOST/NAME")
    if port is not None and not 0 < port < 65536:
        raise InputError(f"--port {port}: a port is a number from 1 to 65535")
    specs = _hosts(hosts)
    stem = re.sub(r"[^a-z0-9]+", "-", os.path.basename(directory).lower(), flags=re.ASCII).strip("-")[:32] or "hq"
    return _Plan(
        directory=directory,
        instance=f"{stem}-{secrets.token_hex(4)}",
        user=parse_user_name(pwd.getpwuid(os.geteuid()).pw_name),
        hosts=specs,
        url=url,
        port=port or free_port(PORTS),
        is_local=all(spec.transport == "local" for spec in specs),
    )


def _own_names() -> set[str]:
    name = socket.gethostname()
    return {"localhost", name, name.partition(".")[0], socket.getfqdn()}


def _hosts(words: list[str]) -> tuple[HostSpec, ...]:
    """The hosts that were named; without any, this machine with all its cores. Raises InputError."""
    if not words:
        name = socket.gethostname().partition(".")[0]
        name = name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) else "localhost"
        words = [f"{name}:{len(os.sched_getaffinity(0))}:local"]
    specs = []
    for word in words:
        found = _HOST.fullmatch(word)
        if found is None:
            raise InputError(f"--host {word}: expected is NAME:SLOTS or NAME:SLOTS:local|ssh|openssh, as node1:8")
        transport = found[3] or ("local" if found[1] in _own_names() else "ssh")
        short = found[1].partition(".")[0]
        # an address has no short form
        specs.append(HostSpec(name=found[1] if short.isdigit() else short, address=found[1], total=int(found[2]), slots=int(found[2]), transport=transport))
    # the reader of cluster.tab knows what a good host is
    try:
        return parse_cluster_tab(samples.cluster_tab(specs), "--host")
    except InputError as error:
        raise InputError(f"--host: {error.column or 'hosts'}: {error.message}") from None


def free_port(ports: range) -> int:
    """One of these TCP ports that nobody on this machine has at the moment. Raises RefusedError if none is found."""
    for _ in range(200):
        port = secrets.choice(ports)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise RefusedError("no free port was found: name one with --port")


def _server_address(plan: _Plan) -> str:
    """Where others dial the server; this machine's own address if nobody else needs it or its name leads nowhere."""
    name = "127.0.0.1" if plan.is_local else own_host_name()
    try:
        socket.getaddrinfo(name, plan.port)
    except OSError:
        print(f"The name of this machine, {name}, does not resolve: client.yaml says 127.0.0.1; change 'server' for other login machines.", file=sys.stderr)
        name = "127.0.0.1"
    return reachable_address(name, plan.port)


def _make(plan: _Plan) -> None:
    """Make everything, or undo what was made."""
    umask = os.umask(0o022)
    try:
        _make_files(plan)
        admin_public = _make_admin_key(plan)
        _dbadmin(plan, ["--create-tables", "--add-standard-entries"])
        key = {"public": admin_public, "user": plan.user, "role": "admin", "created": time.time(), "proof": "init"}
        _dbadmin(plan, ["--enrol-admin"], json.dumps(key))
        read_client_config(plan.etc)
    except BaseException as error:
        for path in reversed(plan.made):
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(f"the instance cannot be made: {error.strerror}", file=error.filename) from None
        raise
    finally:
        os.umask(umask)


def _make_dir(plan: _Plan, path: str, mode: int) -> None:
    """Make a directory that is ours to remove again."""
    os.mkdir(path)
    plan.made.append(path)
    os.chmod(path, mode)


def _make_files(plan: _Plan) -> None:
    missing = plan.directory
    while not os.path.lexists(os.path.dirname(missing)):
        missing = os.path.dirname(missing)
    if not os.path.lexists(plan.directory):
        plan.made.append(missing)
        os.makedirs(plan.directory, 0o755)
    _make_dir(plan, plan.etc, 0o755)
    # users pass through var to the enrolment socket in run, and see nothing else of it
    _make_dir(plan, plan.var, 0o711)
    _make_dir(plan, os.path.join(plan.var, "run"), 0o755)
    _make_dir(plan, os.path.join(plan.var, "log"), 0o700)
    _make_dir(plan, os.path.join(plan.var, "keys"), 0o700)
    public, secret = make_curve_pair()
    write_secret(os.path.join(plan.var, "keys", "curve.secret"), secret)
    write_secret(os.path.join(plan.var, "keys", "curve.public"), public)
    write_secret(os.path.join(plan.etc, "hq-db.cfg"), samples.database_cfg(plan.url))
    texts = {
        "hq.yaml": sample_server_config(instance=plan.instance, bind="127.0.0.1" if plan.is_local else "0.0.0.0", port=str(plan.port)),
        "cluster.tab": samples.cluster_tab(plan.hosts),
        "users": samples.users(((plan.user, "user,admin"),)),
        "client.yaml": samples.client_yaml(plan.instance, _server_address(plan), public, os.path.join(plan.var, "run", "enrol.sock")),
    }
    for name, text in texts.items():
        with open(os.path.join(plan.etc, name), "x", encoding="utf-8") as file:
            file.write(text)


def _make_admin_key(plan: _Plan) -> str:
    """The administrator's own key, in his own directory. Returns the public one."""
    directory = keys_dir(plan.instance)
    # the instance's id is random, so what stands there is of this call
    plan.made.append(os.path.dirname(directory))
    make_private_dir(directory)
    public, secret = make_curve_pair()
    write_secret(os.path.join(directory, "admin.secret"), secret)
    write_secret(os.path.join(directory, "admin.public"), public)
    return public


def _dbadmin(plan: _Plan, words: list[str], given: str = "") -> None:
    """Run hq-dbadmin of this same installation. Raises RefusedError with its own words."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'hq-dbadmin'; from hq.db.main import main; raise SystemExit(main())"
    argv = [sys.executable, "-c", code, root, "--etc", plan.etc, *words]
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, errors="backslashreplace", timeout=TABLES_TIMEOUT, umask=0o077, check=False)
    except subprocess.TimeoutExpired:
        raise HqError(f"the state database did not answer within {TABLES_TIMEOUT:.0f} s; nothing was made") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"hq-dbadmin ended with exit code {done.returncode}"
        rest = "" if "--create-tables" in words or plan.url.startswith("sqlite") else "; tables in the database remain"
        raise RefusedError(f"no instance was made{rest}: {said}")
