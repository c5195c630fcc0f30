"""hq-dbadmin: makes, fills, checks, upgrades and drops the state database of an instance.

Never talks to a running hq-server: what it changes under one is seen at the server's next start. What would pull the tables away from
under one on this machine is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TextIO

from sqlalchemy import Engine, func, select

import hq
from hq.db import tables
from hq.db.backup import back_up, begin_anew, restore
from hq.db.engine import advice, check_revision, create_tables, drop_tables, expected_revision, open_engine, reached, revision, upgrade
from hq.db.faults import place_of
from hq.db.store import Store
from hq.errors import HqError, InputError, RefusedError, UnavailableError, UsageError
from hq.kernel.clustertab import read_cluster_tab
from hq.kernel.config import read_database_url, read_server_config, read_users
from hq.kernel.files import lock_file
from hq.kernel.places import find_etc, read_client_config
from hq.model.changes import AuditRecord, Changes
from hq.model.host import HostRecord
from hq.model.user import KeyRecord, Role, UserRecord, parse_user_name

_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}", re.ASCII)  # Z85


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see hq-dbadmin --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hq-dbadmin", description="Make, fill, check, upgrade or drop the state database of an hq instance.", allow_abbrev=False)
    parser.add_argument("--etc", metavar="DIR", help="the instance's etc directory (default: HQ_ETC, $HQPATH/etc, ~/.config/hq, /etc/hq)")
    parser.add_argument("-C", "--create-tables", action="store_true", help="make all tables and views; harmless if they are there")
    parser.add_argument("-a", "--add-standard-entries", action="store_true", help="enter the hosts of cluster.tab, the users of `users`, the instance")
    parser.add_argument("-D", "--drop-tables", action="store_true", help="delete all tables with everything in them (asks)")
    parser.add_argument("-s", "--show-database-configuration", action="store_true", help="show which database is used; never the password")
    parser.add_argument("--upgrade", action="store_true", help="bring tables of an older revision to the one that this version needs")
    parser.add_argument("--check", action="store_true", help="say whether the database can be used, and what is in it")
    parser.add_argument("--enrol-admin", action="store_true", help='register an administrator\'s key: {"public": ..., "user": ...} on stdin')
    parser.add_argument("--backup", metavar="FILE", help="copy everything, as it is now, into a new file; hq-server may be running")
    parser.add_argument("--restore", metavar="FILE", help="fill empty tables from a backup, and do what --restored does; hq-server must be down")
    parser.add_argument(
        "--restored", action="store_true", help="the database was restored by other means: new epoch, new job ids, nothing of a user starts until his user-server's ledger was compared"
    )
    parser.add_argument("--yes", action="store_true", help="with --drop-tables: do not ask")
    parser.add_argument("--version", action="version", version=f"hq-dbadmin {hq.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed or refused, 2 wrong usage."""
    try:
        return _run(_parser().parse_args(argv), sys.stdin, sys.stdout)
    except HqError as error:
        print(f"hq-dbadmin: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hq-dbadmin: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace, source: TextIO, out: TextIO) -> int:
    names = ("create_tables", "add_standard_entries", "drop_tables", "show_database_configuration", "upgrade", "check", "enrol_admin",
             "backup", "restore", "restored")  # fmt: skip
    if not any(getattr(options, name) for name in names):
        raise UsageError("say what to do: " + ", ".join("--" + name.replace("_", "-") for name in names))
    if options.drop_tables and (options.create_tables or options.add_standard_entries or options.upgrade or options.enrol_admin):
        raise UsageError("--drop-tables stands alone: run hq-dbadmin again to make new tables")
    etc = find_etc(options.etc)
    engine = open_engine(read_database_url(etc), silence=None)
    warning = advice(engine)
    if warning:
        print(f"hq-dbadmin: warning: {warning}", file=sys.stderr)
    try:
        with _server_kept_down(etc) if _needs_it_down(options, engine) else nullcontext():
            return _act(options, etc, engine, source, out)
    finally:
        engine.dispose()


def _needs_it_down(options: argparse.Namespace, engine: Engine) -> bool:
    if options.upgrade and revision(engine) not in (None, expected_revision()):
        return True
    return bool(options.drop_tables or options.restore or options.restored)


@contextmanager
def _server_kept_down(etc: str) -> Iterator[None]:
    """No hq-server of this instance runs on this machine, nor is started meanwhile. Raises RefusedError if one does."""
    path = read_server_config(etc).lock_path if os.path.exists(os.path.join(etc, "hq.yaml")) else ""
    if not os.path.isdir(os.path.dirname(path)):
        yield
        return
    try:
        lock = lock_file(path)
    except UnavailableError as error:
        raise RefusedError(f"hq-server is running ({error}): end it first, with hq-admin shutdown") from None
    with lock:
        yield


def _act(options: argparse.Namespace, etc: str, engine: Engine, source: TextIO, out: TextIO) -> int:
    if options.show_database_configuration:
        _show(engine, out)
    if options.drop_tables:
        return _drop(engine, options.yes, source, out)
    if options.upgrade:
        before = revision(engine)
        if before is None:
            check_revision(engine)
        upgrade(engine)
        after = expected_revision()
        print(f"the tables are of revision {after}" + (" already" if before == after else f" now (before: {before})"), file=out)
    if options.create_tables:
        is_new = revision(engine) is None
        create_tables(engine)
        print(f"the tables {'were made' if is_new else 'are there already'} (revision {expected_revision()})", file=out)
    if options.add_standard_entries or options.enrol_admin or options.check or options.backup or options.restore or options.restored:
        check_revision(engine)
    if options.backup:
        print(f"{back_up(engine, options.backup):,} rows are in {options.backup}", file=out)
    if options.restore:
        count, awaited = restore(engine, options.restore)
        print(f"{count:,} rows were restored; {_awaited(awaited)}", file=out)
    elif options.restored:
        print(f"a new incarnation begins; {_awaited(begin_anew(engine))}", file=out)
    if options.add_standard_entries:
        _add_standard_entries(engine, etc, out)
    if options.enrol_admin:
        _enrol_admin(engine, source, out)
    if options.check:
        _check(engine, out)
    return 0


def _awaited(users: list[str]) -> str:
    if not users:
        return "no ledger is awaited, for nobody has a user-server"
    return f"nothing starts until the ledgers of these users were compared: {', '.join(users)} (hq-admin status shows who is left)"


def _show(engine: Engine, out: TextIO) -> None:
    url = engine.url
    print(f"dialect:   {url.get_backend_name()}", file=out)
    if url.host:
        print(f"host:      {url.host}", file=out)
        print(f"port:      {url.port or 3306}", file=out)
    print(f"database:  {url.database}", file=out)
    if url.username:
        print(f"user:      {url.username}", file=out)
        print(f"password:  {'(set)' if url.password else '(none)'}", file=out)


def _drop(engine: Engine, is_sure: bool, source: TextIO, out: TextIO) -> int:
    if not is_sure:
        print(f"This deletes all jobs, users, keys and the whole history in {place_of(engine.url)}.", file=out)
        print("Type 'yes' to go on: ", end="", file=out, flush=True)
        if source.readline().strip().lower() != "yes":
            print(file=out)
            raise RefusedError("nothing was deleted: the answer was not 'yes'")
    drop_tables(engine)
    print("the tables were deleted", file=out)
    return 0


def _add_standard_entries(engine: Engine, etc: str, out: TextIO) -> None:
    """Hosts and users that are there already keep what was decided about them (active, draining, enabled)."""
    hosts = read_cluster_tab(os.path.join(etc, "cluster.tab"))
    users = read_users(os.path.join(etc, "users"))
    instance = read_client_config(etc).instance
    store = Store(engine)
    there = store.load()
    known = there.settings.get("instance")
    if known not in (None, instance):
        raise RefusedError(f"{place_of(engine.url)} belongs to the instance {known}, not to {instance}: give each instance a database of its own")
    changes = Changes(settings={"instance": instance})
    hosts_there = {host.name: host for host in there.hosts}
    for spec in hosts:
        old = hosts_there.get(spec.name)
        changes.hosts[spec.name] = replace(old, spec=spec, is_listed=True) if old else HostRecord(spec=spec, is_active=spec.is_active)
    users_there = {user.name: user for user in there.users}
    for user in users:
        before = users_there.get(user.name)
        changes.users[user.name] = replace(user, is_enabled=before.is_enabled) if before else user
    store.write(changes)
    print(f"entered: {len(hosts)} host(s), {len(users)} user(s), instance {instance}", file=out)


def _enrol_admin(engine: Engine, source: TextIO, out: TextIO) -> None:
    try:
        given = json.loads(source.read(10_000))
        public, name = given["public"], parse_user_name(given["user"])
        if not isinstance(public, str) or _KEY.fullmatch(public) is None:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError('expected on stdin: {"public": a public key of 40 characters, "user": a user name}') from None
    store = Store(engine)
    there = store.load()
    now = time.time()
    old = next((key for key in there.keys if key.public == public), None)
    if old is not None and (old.user, old.role) != (name, Role.ADMIN):
        raise RefusedError(f"this key is registered already, for {old.user} as {old.role.value}")
    user = next((user for user in there.users if user.name == name), UserRecord(name=name))
    changes = Changes(
        users={name: replace(user, roles=user.roles | {"admin"}, is_enabled=True)},
        keys={public: KeyRecord(public=public, user=name, role=Role.ADMIN, created=now, proof="init")},
    )
    changes.audit.append(AuditRecord(at=now, actor=name, role="admin", action="key.enrol", owner=name, target=public, detail="by hq-dbadmin"))
    store.write(changes)
    print(f"{name} is an administrator with the key {public}", file=out)


def _check(engine: Engine, out: TextIO) -> None:
    with reached(engine), engine.connect() as connection:
        for table in (tables.user, tables.host, tables.job, tables.task, tables.job_history, tables.task_history, tables.blob):
            count = connection.execute(select(func.count()).select_from(table)).scalar_one()
            print(f"{table.name:<13} {count:>10,}", file=out)
    Store(engine).load()
    print(f"{place_of(engine.url)} is of revision {expected_revision()} and can be used", file=out)


if __name__ == "__main__":
    sys.exit(main())
