"""Starting the user-server: on this machine, or by ssh on the one that the site names. Its own words are passed on verbatim."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from hq.client.links import dial_unix, is_this_machine, read_access
from hq.errors import UnavailableError
from hq.kernel.files import make_private_dir
from hq.model.runs import RUN_VARIABLES

if TYPE_CHECKING:
    from hq.client.links import Link
    from hq.kernel.places import ClientConfig

#: The user-server answers `-d` when it is up; longer than this is a hang.
START_TIMEOUT = 90.0
#: A user-server on another machine tells where it is once hq-server has let it in: a key may have to be proved first.
TOLD_TIMEOUT = 30.0


def user_server_argv(etc: str) -> list[str]:
    """The argument list that starts the user-server of our own installation. Raises UnavailableError if it is not there."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # a program of the user's own stands beside none of our commands; they are then where this package is run from
    for folder in (os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable), os.path.join(os.path.dirname(package), "bin")):
        program = os.path.join(folder, "hq-user-server")
        if os.path.isfile(program):
            return [sys.executable, program, "-d", "--etc", etc]
    raise UnavailableError(
        f"hq-user-server is neither beside {sys.argv[0]} nor beside {sys.executable}: is the installation whole?"
    )


def remote_argv(config: ClientConfig) -> list[str]:
    """The argument list that starts the user-server on the machine that the site names."""
    program = user_server_argv(config.etc)[1]
    # ssh hands a shell one line, so the words are quoted for it
    line = shlex.join([program, "-d", "--etc", config.etc])
    return ["ssh", "-x", "-a", "-o", "BatchMode=yes", "--", str(config.userserver), line]


def start(argv: list[str], what: str) -> None:
    """Run it and wait until it is up. Raises UnavailableError with what it printed."""
    # started from within a job, it must not look like a process that the job left behind
    environment = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
    # a file and not a pipe: a daemon that kept our pipe open would keep us waiting
    with tempfile.TemporaryFile() as heard:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=heard, stderr=heard, start_new_session=True, env=environment)
            code = process.wait(START_TIMEOUT)
        except OSError as error:
            raise UnavailableError(f"{what} cannot be started: {error}") from None
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise UnavailableError(f"{what} did not come up within {START_TIMEOUT:.0f} s") from None
        heard.seek(0)
        words = heard.read().decode(errors="backslashreplace").strip()
    if code != 0:
        raise UnavailableError(f"{what} cannot be started:\n{words or f'it ended with exit code {code} and said nothing'}")
    if words:
        print(words, file=sys.stderr)


def spawn(config: ClientConfig, run_dir: str, path: str) -> Link:
    """Start the user-server and connect to it. Commands that find none at the same moment start one, not many."""
    if config.userserver and not is_this_machine(config.userserver):
        start(remote_argv(config), f"your user-server on {config.userserver}")
        return _told_link(config)
    make_private_dir(run_dir)
    fd = os.open(os.path.join(run_dir, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        link: Link | None = dial_unix(path)
        if link is None:
            start(user_server_argv(config.etc), "your user-server")
            link = dial_unix(path)
    finally:
        os.close(fd)
    if link is None:
        # it may have found that another machine has it, and said where
        access = read_access(config.instance)
        if access is not None and not is_this_machine(str(access.get("host", ""))):
            from hq.client.remote import dial_remote

            link = dial_remote(access)
    if link is None:
        raise UnavailableError(f"your user-server says that it is up, but nobody listens at {path}")
    return link


def _told_link(config: ClientConfig) -> Link:
    """A link to the user-server on the machine that the site names, which was just started. Raises UnavailableError."""
    from hq.client.remote import dial_remote

    end = time.monotonic() + TOLD_TIMEOUT
    while True:
        # an access file may also be one that a killed user-server left
        access = read_access(config.instance)
        link: Link | None = dial_remote(access) if access is not None else None
        if link is not None:
            return link
        if time.monotonic() > end:
            raise UnavailableError(
                f"your user-server on {config.userserver} was started, but its access file does not lead to it: the same command typed there says why"
            )
        time.sleep(0.05)
