"""The Unix users alice and bob of the tests: made if they are absent, removed by the last testbed if testbeds made them.

Also: running a command as one of them, with an environment as after a login and nothing of ours in it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.support.lease import ROOT, locked
from tests.support.wait import until

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def setpriv_argv(user: str) -> list[str]:
    """The words before a command that make it run as `user`, with that user's groups. Needs root."""
    # setpriv still has root's capabilities when it executes, and could so execute what the user cannot even see: hence env between them.
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", "--", "env", "--"]


def login_environment(user: str, bin_dir: Path | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a login gives, with `bin_dir` first in PATH."""
    entry = pwd.getpwnam(user)
    path = f"{bin_dir}:{SYSTEM_PATH}" if bin_dir is not None else SYSTEM_PATH
    return {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user, "SHELL": entry.pw_shell, "PATH": path, "LANG": "C.UTF-8", **(extra or {})}


def user_argv(user: str, argv: Sequence[str]) -> list[str]:
    """`argv`, run as `user`; as it stands if that is who we are."""
    return [*setpriv_argv(user), *argv] if pwd.getpwnam(user).pw_uid != os.geteuid() else list(argv)


def run_as(
    user: str,
    argv: Sequence[str],
    *,
    bin_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: bytes = b"",
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as `user` in his home and wait for it. `env` is added to the login's environment."""
    return subprocess.run(
        user_argv(user, argv),
        env=login_environment(user, bin_dir, env),
        cwd=cwd or pwd.getpwnam(user).pw_dir,
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def start_as(
    user: str,
    argv: Sequence[str],
    *,
    bin_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a command as `user`, in a session of its own. The caller ends it, by its pid."""
    return subprocess.Popen(
        user_argv(user, argv),
        env=login_environment(user, bin_dir, env),
        cwd=cwd or pwd.getpwnam(user).pw_dir,
        start_new_session=True,
        **options,
    )


class Users:
    """The users of a testbed, as a context manager. Several testbeds may share them at the same time."""

    def __init__(self, names: Sequence[str] = ("alice", "bob")) -> None:
        self.names = tuple(names)
        self._held: list[int] = []

    def __enter__(self) -> Users:
        ROOT.mkdir(mode=0o755, exist_ok=True)
        try:
            with locked("users"):
                for name in self.names:
                    # The shared lock says that somebody needs the user; it goes with our process.
                    descriptor = os.open(ROOT / f"user-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                    self._held.append(descriptor)
                    _make(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with locked("users"):
            for name, descriptor in zip(self.names, self._held, strict=False):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    continue
                if _marker(name).exists():
                    _remove(name)
                os.close(descriptor)
        self._held.clear()


def _marker(name: str) -> Path:
    return ROOT / f"user-{name}.made"


def _make(name: str) -> None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        _marker(name).touch()
        _call("useradd", "--create-home", "--user-group", "--shell", "/bin/bash", name)
        # An account without a password is locked for sshd; '*' means: no password, not locked.
        _call("usermod", "--password", "*", name)
        entry = pwd.getpwnam(name)
    ssh = Path(entry.pw_dir) / ".ssh"
    key = ssh / "id_ed25519"
    if not ssh.exists():
        _call("install", "-d", "-m700", "-o", name, "-g", name, str(ssh))
    if not key.exists():
        _call(*setpriv_argv(name), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@hq-testbed", "-f", str(key))
    authorized = ssh / "authorized_keys"
    public = key.with_suffix(".pub").read_text()
    if not authorized.exists() or public not in authorized.read_text():
        with authorized.open("a") as stream:
            stream.write(public)
        os.chown(authorized, entry.pw_uid, entry.pw_gid)
        authorized.chmod(0o600)


def _remove(name: str) -> None:
    """Remove a user that testbeds made, and what still runs under its uid: nobody else can have started that."""
    entry = pwd.getpwnam(name)
    processes = [process for process in psutil.process_iter() if _uid(process) == entry.pw_uid]
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    until(lambda: not [p for p in processes if _uid(p) is not None and _is_alive(p)], 60, f"processes of {name} to end")
    subprocess.run(["userdel", "--remove", "--force", name], capture_output=True, check=False)
    subprocess.run(["rm", "-rf", "--", f"/var/tmp/hq-{entry.pw_uid}"], check=False)
    _marker(name).unlink(missing_ok=True)


def _uid(process: psutil.Process) -> int | None:
    try:
        return int(process.uids().real)
    except psutil.NoSuchProcess:
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr or done.stdout}"
