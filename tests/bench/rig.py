"""Instances for the bench: real daemons on this machine, under users made for it when root, and the CPU time that each daemon takes."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.support.install import readable_install, readable_python
from tests.support.mariadb import MariaDB
from tests.support.site import Site
from tests.support.users import Users

DATABASES = ("sqlite", "mariadb")


class Rig:
    """A site of one local host with 2 slots. `user` submits. `url`: of its database, None for its own SQLite."""

    def __init__(self, site: Site, user: str, url: str | None = None, database: psutil.Process | None = None) -> None:
        self.site = site
        self.url = url
        self.user = user
        self.database = database
        self._script = site.folder / "userside.py"
        shutil.copy(Path(__file__).with_name("userside.py"), self._script)
        self._script.chmod(0o644)

    def do(self, what: str, count: int, *more: str, user: str = "", timeout: float = 900) -> dict[str, float]:
        """Let the user side do something; its figures."""
        done = self.site.run(user or self.user, str(readable_python()), str(self._script), what, str(count), *more, timeout=timeout)
        found: dict[str, float] = json.loads(done.ok().out.splitlines()[-1])
        return found

    def warm_up(self, user: str = "") -> None:
        """Have the user's daemons up."""
        self.site.run(user or self.user, "hq-submit", "-q", "--wait", "--hosts", "here", "/bin/true").ok()

    def ends(self) -> list[str]:
        """Whose tasks have ended, in the order of their ends. SQLite only."""
        connection = sqlite3.connect(f"file:{self.site.folder / 'site' / 'var' / 'state.db'}?mode=ro", uri=True)
        try:
            return [user for (user,) in connection.execute("SELECT user FROM task_history ORDER BY ended")]
        finally:
            connection.close()

    def daemons(self) -> dict[str, psutil.Process]:
        """The processes of the instance by what they are."""
        found = {}
        names = {"hq-server": "server", "hq-user-server": "user-server", "--work": "exec-server", "--supervise": "supervisor"}
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            for name, what in names.items():
                if any(word == name or word.endswith("/" + name) for word in words) and self.site._belongs(process):
                    found[what] = process
        return found


def cpu_of(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Seconds of CPU so far."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


def cpu_of_children(process: psutil.Process) -> float:
    """Seconds of CPU of the processes that it has waited for."""
    return sum(process.cpu_times()[2:4])


def _attic() -> Path:
    """Where what the rows leave behind is put away until the bench is over: beside the homes, so that it is moved and not copied."""
    return Path("/home") / f".hq-bench-{os.getpid()}"


def _put_away(users: Sequence[str]) -> None:
    """Move what the users' tasks have written out of the homes that go now.

    What is removed makes each new file dear for minutes, ten to a hundred times on ext4, which passes over each inode that was freed of late: one
    row must not pay for another.
    """
    for user in users:
        written = Path(pwd.getpwnam(user).pw_dir) / ".hq"
        if written.exists() and written.parent.parent == _attic().parent:
            _attic().mkdir(mode=0o700, exist_ok=True)
            written.rename(Path(tempfile.mkdtemp(dir=_attic())) / user)


@contextmanager
def nothing_removed() -> Iterator[None]:
    """Context: what the rows leave behind is removed at its end, and not before."""
    try:
        yield
    finally:
        shutil.rmtree(_attic(), ignore_errors=True)


@contextmanager
def rig(database: str = "sqlite", *, users: int = 1, hosts: int = 0, slots: int = 2) -> Iterator[Rig]:
    """An instance that is up. `hosts`: so many more that are known and never used, of so many slots."""
    with ExitStack() as stack:
        if os.geteuid() == 0:
            names = ["hqb-owner", *(f"hqb-{number:02}" for number in range(users))]
            stack.enter_context(Users(names))
            stack.callback(_put_away, names)
            owner, others = names[0], names[1:]
        else:
            owner = getpass.getuser()
            others = [owner]
        url: str | None = None
        server: MariaDB | None = None
        if database == "mariadb":
            server = MariaDB(is_fast=False)
            stack.callback(server.remove)
            server.start()
            server.execute("create database bench character set utf8mb4", "grant all on bench.* to hqb@'%' identified by 'bench'")
            url = server.url("bench", user="hqb", password="bench")
        rows = ["here:2:local", *(f"spare{number}:{slots}:ssh" for number in range(hosts))]
        site = stack.enter_context(Site(readable_install(), rows=rows, owner=owner, users=others, database=url, machine_slots=None))
        process = psutil.Process(int((server.directory / "pid").read_text())) if server is not None else None
        made = Rig(site, others[0], url, process)
        made.warm_up()
        yield made
