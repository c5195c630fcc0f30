"""The user's keys of an instance, made at the first start: for connections, signatures and the seal; and one pair for each host's exec-server.

Only secrets are kept for good; what is public is computed from them, so that two machines that start at once over a shared
home directory agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq
from nacl.signing import SigningKey

from hq.errors import RefusedError
from hq.kernel.files import make_private_dir, read_secret, write_secret
from hq.kernel.keys import make_curve_pair, make_seal_key, make_sign_pair
from hq.kernel.places import is_plain_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The user-server's own keys, as text (Z85 for CURVE, hex for the rest)."""

    public: str
    secret: str = field(repr=False)
    sign_public: str
    sign_secret: str = field(repr=False)
    seal_key: str = field(repr=False)


def load_keyring(directory: str) -> Keyring:
    """Read the keys in `directory`, and make those that are not there. Raises SecurityError for keys that others may read."""
    make_private_dir(directory)
    secret = _kept(os.path.join(directory, "curve.secret"), lambda: make_curve_pair()[1])
    sign_secret = _kept(os.path.join(directory, "sign.secret"), lambda: make_sign_pair()[1])
    seal_key = _kept(os.path.join(directory, "seal.key"), make_seal_key)
    public = zmq.curve_public(secret.encode()).decode()
    sign_public = bytes(SigningKey(bytes.fromhex(sign_secret)).verify_key).hex()
    for name, text in (("curve.public", public), ("sign.public", sign_public)):
        path = os.path.join(directory, name)
        if not os.path.exists(path) or read_secret(path) != text:
            write_secret(path, text)
    return Keyring(public=public, secret=secret, sign_public=sign_public, sign_secret=sign_secret, seal_key=seal_key)


class ExecKeys:
    """The CURVE pairs of the exec-servers, one a host, kept so that a user-server that restarts still knows them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._pairs: dict[str, tuple[str, str]] = {}
        self._hosts: dict[str, str] = {}

    def of(self, host: str) -> tuple[str, str]:
        """Public and secret key of the exec-server on `host`, made at first use."""
        if host not in self._pairs:
            if not is_plain_name(host):
                raise RefusedError(f"'{host}' cannot be the name of a host: letters, digits, '.', '_' and '-' are allowed")
            secret = _kept(os.path.join(self._directory, f"exec-{host}.secret"), lambda: make_curve_pair()[1])
            public = zmq.curve_public(secret.encode()).decode()
            self._pairs[host] = (public, secret)
            self._hosts[public] = host
        return self._pairs[host]

    def host_of(self, public: str) -> str | None:
        """The host whose exec-server has this key; None for keys that are not ours."""
        return self._hosts.get(public)

    def load(self) -> None:
        """Read all pairs that were made before."""
        for name in os.listdir(self._directory):
            if name.startswith("exec-") and name.endswith(".secret"):
                self.of(name.removeprefix("exec-").removesuffix(".secret"))


def _kept(path: str, make: Callable[[], str]) -> str:
    """The text of a secret file; made if absent. Of two that make it at once, one wins and both read that one."""
    if not os.path.lexists(path):
        fresh = f"{path}.{os.uname().nodename}.{os.getpid()}"
        write_secret(fresh, make())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    return read_secret(path)
