"""The site of a chaos run: test hosts, users and a MariaDB of its own, and a keeper that brings back what a unit would bring back.

The users' run directories and `~/.hq` (with the output of their jobs), and the data of MariaDB, are small tmpfs, so that they can be
filled. User-servers come back by the user's next command, which
the keeper types every few seconds.
"""

from __future__ import annotations

import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from tests.support.hosts import Hosts
from tests.support.install import readable_install
from tests.support.mariadb import MariaDB
from tests.support.site import Site
from tests.support.users import Users

HOSTS = ("c1", "c2", "c3")
USERS = ("hqcarl", "hqdora")
OWNER = "hqotto"
SLOTS = 24
HEARTBEAT, LEASE = 1, 15
SPOOL, OUTPUT = "24m", "64m"
DATABASE_ROOM = 150  # MB beyond what an empty MariaDB needs
DATABASE = "chaos"


def uptime() -> float:
    """The clock of the ledger: /proc/uptime."""
    return float(Path("/proc/uptime").read_text().split()[0])


class Stage:
    """A context manager. `work` holds the ledger and the task's program."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.hosts = Hosts(*HOSTS, users=(*USERS, OWNER))
        self.database = MariaDB(is_fast=False)
        self.wants_database = True
        self.wants_server = True
        self.is_typing = True
        self.revived: dict[str, int] = {}
        self._stack = ExitStack()
        self._is_over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Stage:
        enter = self._stack.enter_context
        try:
            self._stack.callback(self.database.remove)
            enter(Users((*USERS, OWNER)))
            for user in USERS:
                uid = pwd.getpwnam(user).pw_uid
                self._mount(Path(f"/var/tmp/hq-{uid}"), SPOOL, user)
                self._mount(self.home(user), OUTPUT, user)
            self.work = Path(tempfile.mkdtemp(prefix="hq-chaos-", dir="/var/tmp"))
            self._stack.callback(shutil.rmtree, self.work, True)
            self.work.chmod(0o755)
            self.ledger = self.work / "ledger"
            self.ledger.touch()
            self.ledger.chmod(0o666)
            self.program = self.work / "task.sh"
            shutil.copy(Path(__file__).with_name("task.sh"), self.program)
            self.program.chmod(0o755)
            enter(self.hosts)
            self._make_database_small()
            self.database.start()
            self.database.execute(f"create database {DATABASE} character set utf8mb4")
            rows = [f"{name}:{SLOTS}:ssh" for name in HOSTS]
            url = self.database.url(DATABASE)
            # MariaDB dies with the thread that started it: the keeper ends after the site
            keeper = threading.Thread(target=self._keep, daemon=True)
            keepers = [keeper, *(threading.Thread(target=self._type, args=(user,), daemon=True) for user in USERS)]
            self._stack.callback(lambda: [each.join(60) for each in keepers])
            self._stack.callback(self._is_over.set)
            options = f"heartbeat: {HEARTBEAT}\nlease: {LEASE}\nlog_level: INFO"
            self.site = enter(Site(readable_install(), rows=rows, hosts=self.hosts, owner=OWNER, users=USERS, database=url, options=options))
            for each in keepers:
                each.start()
            self._stack.callback(self._leave_alone)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _mount(self, place: Path, size: str, user: str) -> None:
        entry = pwd.getpwnam(user)
        while place.is_mount():  # of a run that was killed
            subprocess.run(["umount", "-l", str(place)], check=True)
        if not place.exists():  # else it is hidden, not touched
            place.mkdir(mode=0o700)
            self._stack.callback(_remove_empty, place)
        options = f"size={size},mode=700,uid={entry.pw_uid},gid={entry.pw_gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hq-chaos", str(place)], check=True)
        self._stack.callback(subprocess.run, ["umount", "-l", str(place)], check=False)

    def _make_database_small(self) -> None:
        data, fresh = self.database.directory / "data", self.database.directory / "fresh"
        data.rename(fresh)
        used = sum(path.stat().st_blocks * 512 for path in fresh.rglob("*") if path.is_file())
        self._mount(data, f"{(used >> 20) + DATABASE_ROOM}m", "nobody")
        subprocess.run(["cp", "-a", f"{fresh}/.", str(data)], check=True)
        shutil.rmtree(fresh)

    # --- processes --------------------------------------------------------------------------------------------------

    def server_pid(self) -> int | None:
        """hq-server, by its lock."""
        return _holder(self.site.folder / "site" / "var" / "run" / "hq-server.lock", "hq-server")

    def user_server_pid(self, user: str) -> int | None:
        """The user's user-server, by its lock."""
        return _holder(self.run_dir(user) / "lock", "user")

    def run_dir(self, user: str) -> Path:
        """The local run directory of a user."""
        return Path(f"/var/tmp/hq-{pwd.getpwnam(user).pw_uid}") / self.site.instance

    @staticmethod
    def home(user: str) -> Path:
        """The user's HQ_HOME: keys, and the output of jobs."""
        return Path(pwd.getpwnam(user).pw_dir) / ".hq"

    def exec_pids(self, host: str, user: str, what: str) -> list[int]:
        """`--work` or `--supervise` of an exec-server."""
        return self.exec_table().get((host, user, what), [])

    def exec_table(self) -> dict[tuple[str, str, str], list[int]]:
        """All processes of exec-servers, by the directory that is their argument. Not a child that is about to become a task: it has its parent's words still."""
        places = {str(self.run_dir(user) / f"exec-{host}"): (host, user) for host in HOSTS for user in USERS}
        found: dict[tuple[str, str, str], dict[int, int]] = {}  # process → parent
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                words = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                for what in {"--work", "--supervise"}.intersection(words):
                    if (place := next((places[word] for word in words if word in places), None)) is not None:
                        found.setdefault((*place, what), {})[process.pid] = process.ppid()
        return {key: [pid for pid, parent in pids.items() if parent not in pids] for key, pids in found.items()}

    def _leave_alone(self) -> None:
        self.wants_server = self.is_typing = False

    # --- keeping ----------------------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> bool:
        """Let time pass; True when the run is over."""
        return self._is_over.wait(seconds)

    def _keep(self) -> None:
        while not self.pause(0.3):
            if self.wants_database and not self.database.revive():
                self._note("MariaDB, in vain")
                continue
            if self.wants_server and self.server_pid() is None:
                with suppress(subprocess.TimeoutExpired):  # stopped in the midst of its start
                    done = self.site.run(OWNER, "hq-server", "-d", timeout=90)
                    self._note("hq-server" if done.rc == 0 else f"hq-server, in vain ({done.err.strip()[-200:]})")

    def _type(self, user: str) -> None:
        while not self.pause(1.5):
            if self.is_typing and self.user_server_pid(user) is None:
                with suppress(subprocess.TimeoutExpired):
                    self.site.client(user, "jobs", "-q", timeout=20)
                    self._note(f"user-server of {user}")

    def _note(self, what: str) -> None:
        with self._lock:
            self.revived[what] = self.revived.get(what, 0) + 1

    def own_errors(self) -> list[str]:
        """Errors of hq itself, which nothing that is done here excuses: the last line of each traceback in any log."""
        found = []
        for place in (self.site.folder / "site" / "var" / "log", *map(self.run_dir, USERS)):
            for path in sorted(place.rglob("*")):
                if path.is_file() and (".log" in path.name or path.name == "stderr"):
                    found += [f"{path.relative_to(place.parent)}: {text}" for text in tracebacks(path.read_text(errors="replace"))]
        return found

    def save(self, folder: Path) -> None:
        """Copy what one needs to find out what happened."""
        for source, name in ((self.site.folder / "site" / "var" / "log", "hq-server"), (self.work, "work"), (self.database.directory / "err.log", "mariadb.log")):
            _copy(source, folder / name)
        for user in USERS:
            _copy(self.run_dir(user), folder / f"run-{user}")
            _copy(self.home(user), folder / f"home-{user}")
        (folder / "revived").write_text("".join(f"{count:5} {what}\n" for what, count in sorted(self.revived.items())))


def _holder(lock: Path, word: str) -> int | None:
    """The process that a lock file names, if it still is one of ours."""
    with suppress(OSError, ValueError, IndexError, psutil.Error):  # it may just be written
        pid = int(lock.read_text().split()[0])
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE and word in " ".join(process.cmdline()):
            return pid
    return None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=lambda folder, names: [n for n in names if (Path(folder) / n).is_socket() or n == "fill"],
                        ignore_dangling_symlinks=True)  # fmt: skip
    elif source.exists():
        shutil.copy(source, target)


def _remove_empty(place: Path) -> None:
    with suppress(OSError):
        place.rmdir()


def tracebacks(text: str) -> list[str]:
    """The last line of each traceback."""
    found = []
    for part in text.split("Traceback (most recent call last):\n")[1:]:
        lines = part.splitlines()
        depth = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        found.append(next((line.strip() for line in lines if line.strip() and len(line) - len(line.lstrip()) < depth), ""))
    return found


def wait_until(moment: float, stage: Stage) -> None:
    """Wait for a moment of time.monotonic()."""
    while (left := moment - time.monotonic()) > 0:
        stage.pause(min(left, 0.2))


