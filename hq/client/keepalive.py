"""`hq-client keepalive`: keep the user-server up over logouts, by systemd where the user may linger, else by cron.

What it does is to be seen and undone: one unit file, or one line of the crontab that ends in our mark.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from hq.client.output import print_json
from hq.client.spawn import user_server_argv
from hq.errors import RefusedError, UnavailableError, UsageError
from hq.kernel.places import find_etc, hq_home, read_client_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hq.client.commands import Call

PATIENCE = 20.0  # seconds for each program of the system


def keepalive(call: Call, words: list[str]) -> int:
    """on, off or status."""
    what = words[0] if words else "on"
    if what not in ("on", "off", "status"):
        raise UsageError(f"keepalive is on, off or status, not '{what}'")
    config = read_client_config(find_etc(call.values.get("etc")))
    keeper = Keeper(config.instance, config.etc)
    if what == "on":
        say = keeper.switch_on()
    elif what == "off":
        say = keeper.switch_off()
    else:
        say = keeper.status()
    if call.is_json:
        print_json({"schema": "hq.keepalive.1", "by": keeper.kept_by(), "text": say})
    else:
        print(say)
    return 0


def run(*argv: str, stdin: str | None = None) -> tuple[int, str]:
    """Run a program of the system: exit code and what it printed. 127 if it is not there."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
    except FileNotFoundError:
        return 127, f"{argv[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, str(error)
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr or done.stdout)


class Keeper:
    """Keeps the user-server of one instance up."""

    def __init__(self, instance: str, etc: str) -> None:
        self.argv = user_server_argv(etc)
        self.unit = f"hq-user-server-{instance}.service"
        config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.unit_path = os.path.join(config_home, "systemd", "user", self.unit)
        self.mark = f"# hq keepalive {instance}"

    def kept_by(self) -> str:
        """systemd, cron or nothing."""
        if os.path.exists(self.unit_path):
            return "systemd"
        return "cron" if self.mark in self._crontab() else "nothing"

    def status(self) -> str:
        """A sentence on what keeps it up, or what would."""
        by = self.kept_by()
        if by == "systemd":
            _, state = run("systemctl", "--user", "is-active", self.unit)
            return f"kept up by systemd ({self.unit_path}: {state.strip() or 'state unknown'})"
        if by == "cron":
            return "kept up by a line in your crontab, looked after every 5 minutes"
        ways = [name for name, is_possible in (("systemd", self._may_linger()), ("cron", self._has_cron())) if is_possible]
        if ways:
            return f"not kept up: 'hq-client keepalive on' would do it by {ways[0]}"
        return "not kept up, and this site allows neither lingering (loginctl enable-linger) nor cron: stay logged in while jobs wait"

    def switch_on(self) -> str:
        """By systemd, else by cron. Raises RefusedError if neither is possible, with what they said."""
        if self.kept_by() != "nothing":
            return self.status()
        reasons = []
        for way in (self._by_systemd, self._by_cron):
            reason = way()
            if reason is None:
                return self.status()
            reasons.append(reason)
        raise RefusedError("this site allows neither systemd with linger nor cron:\n" + "\n".join(reasons))

    def switch_off(self) -> str:
        """Undo it; the user-server that runs stays until it has nothing to do."""
        by = self.kept_by()
        if by == "systemd":
            run("systemctl", "--user", "disable", self.unit)
            os.unlink(self.unit_path)
            run("systemctl", "--user", "daemon-reload")
        elif by == "cron":
            lines = [line for line in self._crontab().splitlines() if not line.endswith(self.mark)]
            code, words = run("crontab", "-", stdin="".join(line + "\n" for line in lines))
            if code != 0:
                raise UnavailableError(f"the crontab cannot be written: {words.strip()}")
        return "not kept up any more" if by != "nothing" else "it was not kept up"

    def _may_linger(self) -> bool:
        code, words = run("loginctl", "show-user", str(os.geteuid()), "--property=Linger")
        return code == 0 and "yes" in words and run("systemctl", "--user", "show-environment")[0] == 0

    def _by_systemd(self) -> str | None:
        code, words = run("systemctl", "--user", "show-environment")
        if code != 0:
            return f"systemd: {words.strip()}"
        if not self._may_linger():
            code, words = run("loginctl", "enable-linger")
            if code != 0 or not self._may_linger():
                return f"systemd: lingering is not allowed: {words.strip()}"
        os.makedirs(os.path.dirname(self.unit_path), exist_ok=True)
        with open(self.unit_path, "w", encoding="utf-8") as file:
            file.write(self.unit_text())
        for argv in (("daemon-reload",), ("enable", "--now", self.unit)):
            code, words = run("systemctl", "--user", *argv)
            if code != 0:
                os.unlink(self.unit_path)
                return f"systemd: {words.strip()}"
        return None

    def unit_text(self) -> str:
        """The unit file. Words are quoted as systemd.service(5) asks, `%` and `$` doubled."""
        words = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"' for word in self.argv)
        home = hq_home().replace("%", "%%")
        return (
            "[Unit]\nDescription=hq user-server\n\n"
            f'[Service]\nType=forking\nEnvironment="HQ_HOME={home}"\nExecStart={words}\nRestart=always\nRestartSec=30\nKillMode=process\n\n'
            "[Install]\nWantedBy=default.target\n"
        )

    def cron_line(self) -> str:
        """The line of the crontab; in one, `%` means a newline."""
        words = shlex.join(["env", f"HQ_HOME={hq_home()}", *self.argv]).replace("%", "\\%")
        return f"*/5 * * * * {words} >/dev/null 2>&1 {self.mark}"

    def _has_cron(self) -> bool:
        return shutil.which("crontab") is not None

    def _crontab(self) -> str:
        code, words = run("crontab", "-l")
        return words if code == 0 else ""

    def _by_cron(self) -> str | None:
        if not self._has_cron():
            return "cron: crontab is not installed"
        before = self._crontab()
        code, words = run("crontab", "-", stdin=before + ("" if before.endswith("\n") or not before else "\n") + self.cron_line() + "\n")
        return f"cron: {words.strip()}" if code != 0 else None
