"""What an exec-server is told when it is started: one JSON line on stdin, kept in `bootstrap.json` (0600) for its worker.

Holds secrets: never in argv, environment or log.
"""

from __future__ import annotations

import os

import msgspec

from hq.errors import InputError
from hq.kernel.files import read_secret, write_secret
from hq.kernel.places import is_plain_name
from hq.model.batch import BATCH_BACKENDS, BatchSettings


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """See the fields of the start dialogue. `idle`: seconds without anything to do until it ends. `home`: HQ_HOME on the host, empty: the default.

    `batch`: with the backend of a batch system, how it is used.
    """

    instance: str
    host: str
    user: str
    upstreams: tuple[str, ...]
    upstream_key: str
    public: str
    secret: str
    sign_public: str
    seal_key: str
    slots: int = 1
    heartbeat: float = 10.0
    version: str = ""
    protocol: int = 1
    allow_root: bool = False
    idle: float = 600.0
    home: str = ""
    server: str = ""  # hq-server's address and key: the second way up; empty: none
    standbys: tuple[str, ...] = ()  # where else hq-server may be active
    server_key: str = ""
    backend: str = "process"
    batch: BatchSettings | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """All addresses of hq-server; none: there is no second way up."""
        return (self.server, *self.standbys) if self.server else ()

    def __repr__(self) -> str:
        return f"Bootstrap({self.instance}, {self.user}@{self.host})"


def parse_bootstrap(text: str | bytes) -> Bootstrap:
    """Read the line. Raises InputError, which never quotes the line, for it holds secrets."""
    try:
        found = msgspec.json.decode(text, type=Bootstrap)
    except msgspec.ValidationError as error:
        raise InputError(f"the start line does not fit: {error}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InputError("the start line is not JSON") from None
    if not is_plain_name(found.instance) or not is_plain_name(found.host):
        raise InputError("the start line names an instance or host that cannot be part of a path")
    if not found.upstreams:
        raise InputError("the start line names no address of the user-server")
    if len(found.upstream_key) != 40 or len(found.public) != 40 or len(found.secret) != 40:
        raise InputError("a CURVE key in the start line does not have 40 characters")
    if found.backend != "process" and found.backend not in BATCH_BACKENDS:
        raise InputError(f"there is no backend '{found.backend}': process, {', '.join(sorted(BATCH_BACKENDS))}")
    if not 0 < found.heartbeat <= 3600:
        raise InputError("the heartbeat in the start line is out of range")
    return found


def with_ssh_route(upstreams: tuple[str, ...], ssh_connection: str | None) -> tuple[str, ...]:
    """Addresses of the user-server, and as the second one that which sshd saw the client come from, with the port of the first.

    `ssh_connection` is the value of SSH_CONNECTION: `client port server port`.
    """
    words = (ssh_connection or "").split()
    if not words or not upstreams:
        return upstreams
    port = upstreams[0].rpartition(":")[2]
    client = f"[{words[0]}]" if ":" in words[0] else words[0]
    seen = f"tcp://{client}:{port}"
    return upstreams if seen in upstreams else (upstreams[0], seen, *upstreams[1:])


def save_bootstrap(run_dir: str, bootstrap: Bootstrap) -> None:
    """Write `bootstrap.json`, mode 0600, in one step."""
    write_secret(os.path.join(run_dir, "bootstrap.json"), msgspec.json.encode(bootstrap).decode())


def load_bootstrap(run_dir: str) -> Bootstrap:
    """Read `bootstrap.json`. Raises SecurityError, InputError."""
    return parse_bootstrap(read_secret(os.path.join(run_dir, "bootstrap.json")))
