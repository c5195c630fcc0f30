"""A private MariaDB for tests: an ordinary user's process on a port of its own at 127.0.0.1, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.wait import until


def program(name: str) -> str | None:
    """The path of a program of MariaDB; the server's is not in everybody's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def is_available() -> bool:
    """Whether the programs are installed."""
    return all(map(program, ("mariadbd", "mariadb-install-db")))


class MariaDB:
    """One private server. `start`, `kill` (as a power cut of the process) and `stop` may be repeated; the data stays until `remove`.

    With `is_fast` nothing is synced to disk, but each commit reaches the kernel: it survives `kill`, and is no base for figures.
    """

    def __init__(self, *, is_fast: bool = True, bind: str = "127.0.0.1") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hq-mariadb-"))
        self.directory.chmod(0o755)
        (self.port,) = free_ports(1)
        self._is_fast = is_fast
        self._bind = bind
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = None
        if os.geteuid() == 0:
            self._user = "nobody"
            os.chown(self.directory, pwd.getpwnam("nobody").pw_uid, -1)
        self._run(
            program("mariadb-install-db") or "mariadb-install-db", "--no-defaults", f"--datadir={self.directory}/data", "--auth-root-authentication-method=normal",
            "--skip-test-db", "--cross-bootstrap", "--innodb-log-file-size=16M",
        )  # fmt: skip

    def url(self, database: str, *, user: str = "root", password: str = "", host: str = "127.0.0.1") -> str:
        """The SQLAlchemy URL of a database on this server."""
        return f"mysql+pymysql://{user}{':' + password if password else ''}@{host}:{self.port}/{database}"

    def start(self) -> None:
        """Start it and return once it answers."""
        assert self._process is None
        fast = ("--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--innodb-doublewrite=0", "--sync-binlog=0")
        # whatever ends the tests ends it too
        argv = (
            "setpriv", "--pdeathsig", "KILL", *(("--reuid", self._user, "--clear-groups") if self._user else ()),
            program("mariadbd") or "mariadbd", "--no-defaults", f"--datadir={self.directory}/data", f"--socket={self.directory}/sock",
            f"--pid-file={self.directory}/pid", f"--port={self.port}", f"--bind-address={self._bind}",
            f"--log-error={self.directory}/err.log",
            # one that starts deletes the temporary tables it finds: those of another instance, in a directory they share
            f"--tmpdir={self.directory}", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
            "--key-buffer-size=1M", "--performance-schema=OFF", "--skip-name-resolve", "--max-connections=100",
            *(fast if self._is_fast else ()),
        )  # fmt: skip
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until(self._is_up, timeout=60, what="MariaDB to answer")

    @property
    def pid(self) -> int | None:
        """Its process while it lives, and while it starts."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def revive(self) -> bool:
        """Start it if it is dead, by whatever; False if it died once more at that (killed again, or no room on its disk)."""
        if self.pid is None:
            self._process = None
            try:
                self.start()
            except AssertionError:
                return False
        return True

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut down in good order."""
        self._end(signal.SIGTERM)

    def remove(self) -> None:
        """Stop and delete everything."""
        self.kill()
        shutil.rmtree(self.directory)

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Run SQL as root; the rows of the last statement."""
        import pymysql

        connection = pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def _run(self, *argv: str) -> None:
        # temporary tables are named by the process id, which another process namespace with the same /tmp has, too
        environment = {**os.environ, "TMPDIR": str(self.directory)}
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, user=self._user, check=False, cwd="/", env=environment)
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")

    def _is_up(self) -> bool:
        process = self._process
        assert process is not None, "MariaDB was killed while it started"
        if process.poll() is not None:
            raise AssertionError("mariadbd ended: " + (self.directory / "err.log").read_text(errors="replace")[-2000:])
        import pymysql

        try:
            self.execute("select 1")
        except (OSError, pymysql.OperationalError):
            return False  # not yet, or killed at this moment: its process tells
        return True

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(60)
