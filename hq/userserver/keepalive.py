"""Keeping the user-server up over logouts and reboots: a systemd user unit where lingering is allowed, else cron, else saying why not.

`choose` decides, without touching anything; the rest carries it out by argument lists. Nothing here talks to a running user-server.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from hq.errors import HqError, RefusedError, UnavailableError
from hq.kernel.files import make_private_dir

TIMEOUT = 30.0


class Ran(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[[Sequence[str], str | None], Ran]


class Way(Enum):
    """By what the user-server is kept up."""

    SYSTEMD = "systemd"
    CRON = "cron"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the machine allows this user. The texts say why not, in the machine's own words; empty: it does."""

    systemd: str
    cron: str


def choose(site: Site) -> Way:
    """The way to go. Raises RefusedError that says why there is none."""
    if not site.systemd:
        return Way.SYSTEMD
    if not site.cron:
        return Way.CRON
    raise RefusedError(
        "this machine allows neither: jobs that wait do not start while you are logged out and the user-server is gone "
        f"(running ones run on). systemd: {site.systemd}; cron: {site.cron}"
    )


def run_command(argv: Sequence[str], text: str | None = None) -> Ran:
    """Run a command with `text` as its input; a missing one has code 127."""
    try:
        done = subprocess.run(list(argv), input=text or "", capture_output=True, text=True, timeout=TIMEOUT, check=False, errors="replace")
    except FileNotFoundError:
        return Ran(127, "", f"{argv[0]} is not installed")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Ran(126, "", str(error))
    return Ran(done.returncode, done.stdout, done.stderr.strip())


class Keepalive:
    """Installs, removes and tells for one instance and user."""

    def __init__(
        self, instance: str, user: str, command: Sequence[str], note_path: str, *, run: Run = run_command, config_home: str | None = None
    ) -> None:
        """`command` starts the user-server in the foreground; `note_path` is a file that remembers what was installed where."""
        self._instance = instance
        self._user = user
        self._command = list(command)
        self._note_path = note_path
        self._run = run
        self._config_home = config_home or os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")

    @property
    def unit(self) -> str:
        """The name of the systemd unit."""
        return f"hq-user-server-{self._instance}.service"

    @property
    def mark(self) -> str:
        """What ends our lines in the crontab."""
        return f"# hq keepalive {self._instance}"

    def look(self) -> Site:
        """Find out what is allowed. Asks for lingering, which changes nothing where it is there or is refused."""
        systemd = self._run(["systemctl", "--user", "show-environment"], None)
        reason = "" if systemd.code == 0 else systemd.err or "no systemd of the user is running"
        if not reason and not self._is_lingering():
            linger = self._run(["loginctl", "enable-linger", self._user], None)
            reason = "" if linger.code == 0 else f"lingering is not allowed: {linger.err}"
        if not reason:
            return Site(systemd="", cron="not asked")
        table = self._run(["crontab", "-l"], None)
        is_allowed = table.code == 0 or "no crontab" in table.err.lower()
        return Site(systemd=reason, cron="" if is_allowed else table.err or "crontab refuses")

    def install(self) -> str:
        """Keep it up from now on. Returns a sentence. Raises RefusedError where nothing is allowed, UnavailableError where it fails."""
        way = choose(self.look())
        if way is Way.SYSTEMD:
            self._write_unit()
            for argv in (["systemctl", "--user", "daemon-reload"], ["systemctl", "--user", "enable", "--now", self.unit]):
                self._must(argv)
        else:
            self._must(["crontab", "-"], self._crontab(with_ours=True))
        self._write_note(way)
        return self.status()

    def remove(self) -> str:
        """Do not keep it up any more; a running one is not touched, except that systemd stops its own. Returns a sentence."""
        if os.path.exists(self._unit_path()):
            self._run(["systemctl", "--user", "disable", "--now", self.unit], None)
            os.unlink(self._unit_path())
            self._run(["systemctl", "--user", "daemon-reload"], None)
        table = self._run(["crontab", "-l"], None)
        if table.code == 0 and self.mark in table.out:
            self._must(["crontab", "-"], self._crontab(with_ours=False))
        try:
            os.unlink(self._note_path)
        except FileNotFoundError:
            pass
        return self.status()

    def status(self) -> str:
        """In a sentence, whether it is kept up. Reads one file."""
        machine = os.uname().nodename
        try:
            with open(self._note_path, encoding="utf-8") as file:
                way, _, where = file.read().strip().partition(" ")
        except OSError:
            return f"Your user-server on {machine} is not kept up over logouts and reboots: 'hq-client keepalive' does that."
        if where != machine:
            return f"Your user-server is kept up on {where} (by {way}), not on {machine}."
        return f"Your user-server on {machine} is kept up over logouts and reboots by {way}."

    def unit_text(self) -> str:
        """The systemd unit."""
        words = " ".join(_systemd_word(word) for word in [*self._command, "--keepalive"])
        return (
            f"[Unit]\nDescription=hq user-server of {self._instance}\nAfter=network-online.target\n\n"
            f"[Service]\nExecStart={words}\nRestart=always\nRestartSec=30\n"
            # runs are children of exec-servers on this machine, which outlive the user-server
            "KillMode=process\n\n[Install]\nWantedBy=default.target\n"
        )

    def cron_lines(self) -> list[str]:
        """Our lines in the crontab. In cron's own language a percent sign ends the command, unless escaped."""
        line = shlex.join([*self._command, "-d", "--keepalive"]).replace("%", "\\%")
        return [f"{when} {line} >/dev/null 2>&1 {self.mark}" for when in ("@reboot", "*/5 * * * *")]

    def _is_lingering(self) -> bool:
        shown = self._run(["loginctl", "show-user", self._user, "--property=Linger", "--value"], None)
        return shown.code == 0 and shown.out.strip() == "yes"

    def _crontab(self, *, with_ours: bool) -> str:
        table = self._run(["crontab", "-l"], None)
        if table.code != 0 and "no crontab" not in table.err.lower():
            # writing now would lose what could not be read
            raise UnavailableError(f"your crontab cannot be read: {table.err}")
        lines = [line for line in table.out.splitlines() if not line.endswith(self.mark)] if table.code == 0 else []
        return "".join(f"{line}\n" for line in [*lines, *(self.cron_lines() if with_ours else [])])

    def _unit_path(self) -> str:
        return os.path.join(self._config_home, "systemd", "user", self.unit)

    def _write_unit(self) -> None:
        try:
            os.makedirs(os.path.dirname(self._unit_path()), exist_ok=True)
            with open(self._unit_path(), "w", encoding="utf-8") as file:
                file.write(self.unit_text())
        except OSError as error:
            raise UnavailableError(f"{self._unit_path()} cannot be written: {error.strerror}") from None

    def _write_note(self, way: Way) -> None:
        make_private_dir(os.path.dirname(self._note_path))
        with open(self._note_path, "w", encoding="utf-8") as file:
            file.write(f"{way.value} {os.uname().nodename}\n")

    def _must(self, argv: Sequence[str], text: str | None = None) -> None:
        done = self._run(argv, text)
        if done.code != 0:
            raise UnavailableError(f"'{shlex.join(argv)}' failed: {done.err or f'exit code {done.code}'}")


def _systemd_word(word: str) -> str:
    """A word of ExecStart=: in quotes, with systemd's own specials escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def carry_out(keepalive: Keepalive, action: str) -> tuple[str, int]:
    """install, remove or status: what to print, and the exit code."""
    try:
        return {"install": keepalive.install, "remove": keepalive.remove, "status": keepalive.status}[action](), 0
    except HqError as error:
        return str(error), error.exit_code
