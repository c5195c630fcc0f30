"""A whole site for end-to-end tests: an instance, hq-server as an ordinary user, users, hosts; commands as the users type them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.hosts import Hosts
from tests.support.proc import Command, Result
from tests.support.users import SYSTEM_PATH
from tests.support.wait import until

#: Slots of a machine for cluster.tab, however few of them are hq's: by them its load is judged.
MACHINE_SLOTS = 1000


class Site:
    """An instance in a folder of its own under /var/tmp, with real daemons. `owner` runs hq-server and is the administrator.

    `rows`: host options of `hq-admin init`, NAME:SLOTS[:TRANSPORT]; with `hosts` the addresses of its test hosts are written
    into cluster.tab. `options`: lines for hq.yaml. Whatever else this machine has to do, no host of the site looks busy, but with `machine_slots`
    None, which leaves what `hq-admin init` wrote.
    A context manager: the server is up inside, and everything that belongs to the instance is ended after.
    """

    def __init__(
        self,
        bin_dir: Path,
        *,
        rows: Sequence[str],
        hosts: Hosts | None = None,
        owner: str = "olga",
        users: Sequence[str] = ("alice", "bob"),
        database: str | None = None,
        options: str = "",
        machine_slots: int | None = MACHINE_SLOTS,
    ) -> None:
        self.bin = bin_dir
        self.hosts = hosts
        self.owner = owner
        self.users = tuple(users)
        self._rows = rows
        self._names = {row.partition(":")[0] for row in rows}
        self._database = database
        self._options = options
        self._machine_slots = machine_slots
        self.folder = Path(tempfile.mkdtemp(prefix="hq-site-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        os.chown(self.folder, pwd.getpwnam(owner).pw_uid, pwd.getpwnam(owner).pw_gid)
        self.etc = self.folder / "site" / "etc"

    def __enter__(self) -> Site:
        try:
            options = [word for row in self._rows for word in ("--host", row)]
            database = ["--db", self._database] if self._database else []
            self.admin("init", str(self.folder / "site"), *options, *database).ok()
            self._write_table()
            with (self.etc / "hq.yaml").open("a") as file:
                file.write(f"\n{self._options}\n")
            for user in self.users:
                self.admin("adduser", user) if self._is_up() else self._add_user(user)
            self.start_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for user in self.users:
            if (self.etc / "client.yaml").exists() and self._run_dir(user).exists():
                self.run(user, "hq-client", "shutdown", "--hosts", timeout=30)
        if self._is_up():
            self.admin("shutdown", timeout=30)
        self._end_rest()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def instance(self) -> str:
        """The instance's id."""
        for line in (self.etc / "client.yaml").read_text().splitlines():
            if line.startswith("instance:"):
                return line.partition(":")[2].strip()
        raise AssertionError("client.yaml names no instance")

    def start_server(self) -> None:
        """Start hq-server; returns once it is up."""
        self.run(self.owner, "hq-server", "-d").ok()

    def server_pid(self) -> int:
        """The process of hq-server."""
        for process in psutil.process_iter(["cmdline", "uids"]):
            words = process.info["cmdline"] or []
            if any(word.endswith("/hq-server") for word in words) and self._belongs(process):
                return int(process.pid)
        raise AssertionError("hq-server does not run")

    def command(self, user: str, **env: str) -> Command:
        """The commands of hq as `user` types them, with `env` added to his login's environment."""
        return Command(self.bin, user, {"HQ_ETC": str(self.etc), **env})

    def run(self, user: str, name: str, *args: str, env: Mapping[str, str] | None = None, **options: Any) -> Result:
        """Run one command of hq (or another program) as `user`."""
        return self.command(user, **(env or {}))(name if name.startswith("hq-") else shutil.which(name, path=SYSTEM_PATH) or name, *args, **options)

    def admin(self, *argv: str, timeout: float = 60) -> Result:
        """hq-admin as the owner."""
        return self.run(self.owner, "hq-admin", *argv, timeout=timeout)

    def client(self, user: str, *argv: str, timeout: float = 60) -> Result:
        """hq-client as a user."""
        return self.run(user, "hq-client", *argv, timeout=timeout)

    def submit(self, user: str, *argv: str, **options: Any) -> str:
        """hq-submit -q as a user; the job's id."""
        return self.run(user, "hq-submit", "-q", *argv, **options).ok().out.strip()

    @property
    def waits(self) -> str:
        """For a job's command line: it waits here until `let_go`."""
        return f"until [ -e {self.folder}/go-$HQ_JOB_ID ]; do sleep 0.05; done"

    def let_go(self, job: str) -> None:
        """Whoever of a job waits, or will, goes on."""
        (self.folder / f"go-{job}").touch()

    def rows(self, user: str, *selection: str) -> list[dict[str, Any]]:
        """Rows of `hq-client jobs`."""
        rows: list[dict[str, Any]] = self.client(user, "jobs", *selection, "--json").ok().json["rows"]
        return rows

    def row(self, user: str, job: str) -> dict[str, Any]:
        """The row of one job."""
        (row,) = self.rows(user, job)
        return row

    def seen_by_owner(self, job: str) -> dict[str, Any]:
        """The row of one job as the owner asks for it: no user-server is started for that."""
        rows = self.admin("lsjobs", "--json").ok().json["rows"]
        return next(row for row in rows if str(row["id"]) == job)

    def wait_for(self, user: str, job: str, state: str = "finished", timeout: float = 60) -> dict[str, Any]:
        """Wait until a job is in a state; its row then."""
        until(lambda: self.row(user, job)["state"] == state, timeout, f"job {job} to be {state}")
        return self.row(user, job)

    def make_batch(self, host: str, backend: str, options: str = "") -> None:
        """Make a host of cluster.tab a synthetic one, with these lines for its block in backends.yaml."""
        table = self.etc / "cluster.tab"
        lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
        if "backend" not in lines[0].split("\t"):
            lines = [f"{line}\t{'process' if number else 'backend'}" for number, line in enumerate(lines)]
        lines = [f"{line.rpartition(chr(9))[0]}\t{backend}" if line.split("\t")[0] == host else line for line in lines]
        table.write_text("\n".join(lines) + "\n")
        with (self.etc / "backends.yaml").open("a") as file:
            file.write(f"{host}:\n{options}\n")
        self.admin("reload").ok()

    def _write_table(self) -> None:
        """Put the addresses of the test hosts into cluster.tab, and so many slots of each machine that its load is nothing to them."""
        table = self.etc / "cluster.tab"
        lines = []
        for line in table.read_text().splitlines():
            cells = line.split("\t")
            if cells[0] in self._names:
                if self.hosts is not None and cells[0] in self.hosts.names:
                    cells[1] = self.hosts.address(cells[0])
                cells[2] = cells[2] if self._machine_slots is None else str(self._machine_slots)
            lines.append("\t".join(cells))
        table.write_text("\n".join(lines) + "\n")

    def _add_user(self, user: str) -> None:
        with (self.etc / "users").open("a") as users:
            users.write(f"{user}\tuser\n")

    def _is_up(self) -> bool:
        with suppress(AssertionError):
            return bool(self.server_pid())
        return False

    def _run_dir(self, user: str) -> Path:
        return Path(f"/var/tmp/hq-{pwd.getpwnam(user).pw_uid}") / self.instance

    def _belongs(self, process: psutil.Process) -> bool:
        """Whether a process is a daemon of this instance, or a job of one: its environment names this etc, or its tags this instance."""
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            return False
        name = self.instance
        return environment.get("HQ_ETC") == str(self.etc) or environment.get("HQ_INSTANCE") == name or name in " ".join(process.cmdline())

    def _end_rest(self) -> None:
        if not (self.etc / "client.yaml").exists():
            return
        run_dirs = [self._run_dir(user) for user in (*self.users, self.owner)]
        mine = [process for process in psutil.process_iter() if self._belongs(process)]
        for process in (process for process in mine if process.pid != os.getpid()):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        for folder in run_dirs:
            shutil.rmtree(folder, ignore_errors=True)
