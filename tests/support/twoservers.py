"""A site with two server machines: an active hq-server and one that stands by, each on a test host of its own, and a MariaDB that both reach."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.hosts import Hosts
from tests.support.mariadb import MariaDB
from tests.support.site import Site
from tests.support.wait import until

DATABASE = "hq_two"
PORT = 10101


class TwoServers(Site):
    """The site's own hosts and users are on this machine; `machines` are those of hq-server, in the order of client.yaml."""

    def __init__(self, bin_dir: Path, hosts: Hosts, database: MariaDB, *, options: str, rows: Sequence[str] = ("here:64:local",)) -> None:
        self.machines = hosts.names
        self.database = database
        # any address: root may come from one that MariaDB does not know otherwise
        database.execute(f"create database {DATABASE} character set utf8mb4", "create user two@'%' identified by 'two'", f"grant all on {DATABASE}.* to two@'%'")
        super().__init__(bin_dir, rows=rows, users=("alice",), database=database.url(DATABASE, user="two", password="two", host=hosts.gateway),
                         options=options)  # fmt: skip
        self._net = hosts

    def __enter__(self) -> TwoServers:
        super().__enter__()
        return self

    def start_server(self) -> None:
        """Start both, the first one first."""
        client = self.etc / "client.yaml"
        addresses = " ".join(f"tcp://{self._net.address(name)}:{PORT}" for name in self.machines)
        lines = [f"server: {addresses}" if line.startswith("server:") else line for line in client.read_text().splitlines()]
        client.write_text("\n".join(lines) + "\n")
        options = self.etc / "hq.yaml"
        text = "".join(line for line in options.read_text().splitlines(True) if not line.startswith(("port:", "bind:")))
        options.write_text(f"{text}\nbind: 0.0.0.0\nport: {PORT}\n")
        for name in self.machines:
            folder = self.folder / name
            shutil.copytree(self.etc, folder / "etc")
            shutil.copytree(self.folder / "site" / "var" / "keys", folder / "var" / "keys")
            # the place of the socket is the same on all machines; here they share a file system
            for path in (folder, *folder.rglob("*")):
                os.chown(path, pwd.getpwnam(self.owner).pw_uid, pwd.getpwnam(self.owner).pw_gid)
            self.start_on(name)

    def start_on(self, name: str) -> None:
        """Start hq-server --standby on one of the machines; returns once it is up or stands by."""
        done = self.start_plainly(name, "--standby")
        assert done.returncode == 0, done.stderr.decode()

    def start_plainly(self, name: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        """Start hq-server in the background on one of the machines; how that went."""
        env = {"HQ_ETC": str(self.folder / name / "etc"), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        return self._net.exec(name, [str(self.bin / "hq-server"), "-d", *options], user=self.owner, env=env)

    def pid_on(self, name: str) -> int:
        """The process of hq-server on a machine; 0: none."""
        for pid in self._net.pids(name):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE and any(word.endswith("/hq-server") for word in process.cmdline()):
                    return pid
        return 0

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the hq-server of a machine."""
        pid = self.pid_on(name)
        assert pid, f"hq-server does not run on {name}"
        os.kill(pid, number)
        if number is signal.SIGKILL:
            until(lambda: not self.pid_on(name), 20, "end of the killed hq-server")

    def log_of(self, name: str) -> str:
        """The log of a machine's hq-server."""
        path = self.folder / name / "var" / "log" / "hq-server.log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any]:
        """What hq-admin status says; empty while nobody answers."""
        done = self.admin("status", "--json")
        return {row["fact"]: row["value"] for row in done.json["rows"]} if done.rc == 0 else {}

    def active(self) -> str:
        """The machine whose hq-server has the seat by the database's word."""
        ((holder,),) = self.database.execute(f"select holder from {DATABASE}.seat")
        return str(holder).partition(":")[0]

    def _is_up(self) -> bool:
        return any(map(self.pid_on, self.machines))

    def __exit__(self, *_: object) -> None:
        for name in self.machines:
            if self.pid_on(name):
                self.kill(name)
        super().__exit__()
