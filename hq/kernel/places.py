"""Where things are: the etc directory, the user's own directory, run directories; and `client.yaml`.

Standard library only and cheap to import (no re, no dataclasses): `hq-submit` reads it on its way to the socket.
"""

from __future__ import annotations

import os

from hq.errors import InputError
from hq.kernel.files import check_not_writable_by_others


def find_etc(option: str | None = None) -> str:
    """The instance's etc directory: the option, else HQ_ETC, $HQPATH/etc, ~/.config/hq, /etc/hq, the first that exists.

    Raises InputError if the one that was named does not exist, or none does.
    """
    named = option or os.environ.get("HQ_ETC")
    if named:
        if not os.path.isdir(named):
            raise InputError(f"the etc directory {named} ({'--etc' if option else 'HQ_ETC'}) does not exist: hq-admin init DIR makes an instance")
        return os.path.abspath(named)
    places = [os.path.expanduser("~/.config/hq"), "/etc/hq"]
    if os.environ.get("HQPATH"):
        places.insert(0, os.path.join(os.environ["HQPATH"], "etc"))
    for place in places:
        # an etc without its client.yaml is a directory of samples
        if os.path.isfile(os.path.join(place, "client.yaml")) or os.path.isfile(os.path.join(place, "hq.yaml")):
            return os.path.abspath(place)
    raise InputError(f"no instance was found in {', '.join(places)}: set HQ_ETC to its etc directory, or make one with hq-admin init DIR")


def hq_home() -> str:
    """The user's own directory: HQ_HOME, default ~/.hq. Not made here."""
    return os.path.abspath(os.environ.get("HQ_HOME") or os.path.expanduser("~/.hq"))


def user_run_dir(instance: str) -> str:
    """Where the user's user-server of an instance has its socket, lock and log: local, one a user id. Not made here."""
    return f"/var/tmp/hq-{os.getuid()}/{_checked(instance)}"


def exec_run_dir(instance: str, host: str) -> str:
    """Where the user's exec-server on a host has its journal. The host is part, because hosts may share a file system."""
    return f"{user_run_dir(instance)}/exec-{_checked(host)}"


def keys_dir(instance: str) -> str:
    """Where the user's keys for an instance are. Not made here."""
    return f"{hq_home()}/{_checked(instance)}/keys"


class ClientConfig:
    """What `client.yaml` says: all that a command needs to reach the instance.

    `server` is `tcp://host:port`, `servers` all such addresses where hq-server may be active, in the order in which they are tried, `server_key` the server's CURVE key, `enrol_socket` the path of its Unix socket on its own
    machine, `userserver` the machine on which user-servers should run (None: anywhere), `exec_server` the command on
    ordinary hosts (None: the same path as here), `etc` the directory that it was read from.
    """

    __slots__ = ("allow_root", "enrol_socket", "etc", "exec_server", "instance", "server", "server_key", "servers", "userserver")

    def __init__(
        self, *, instance: str, server: str, server_key: str, enrol_socket: str, etc: str,
        userserver: str | None = None, exec_server: str | None = None, allow_root: bool = False,
    ) -> None:  # fmt: skip
        self.instance = instance
        self.servers = tuple(server.replace(",", " ").split())
        self.server = self.servers[0]
        self.server_key = server_key
        self.enrol_socket = enrol_socket
        self.etc = etc
        self.userserver = userserver
        self.exec_server = exec_server
        self.allow_root = allow_root


_NEEDED = ("instance", "server", "server_key", "enrol_socket")
_OPTIONAL = ("userserver", "exec_server", "allow_root")


def read_client_config(etc: str) -> ClientConfig:
    """Read `client.yaml` in an etc directory.

    Raises InputError with file and line, SecurityError if others may write the directory or the file.
    """
    path = os.path.join(etc, "client.yaml")
    check_not_writable_by_others(etc)
    check_not_writable_by_others(path)
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        if not colon or (rest and not rest[0].isspace()):
            raise InputError(f"'{line}' is not of the form name: value", file=path, line=number)
        if name not in _NEEDED and name not in _OPTIONAL:
            raise InputError(f"there is no option '{name}'; known are {', '.join(_NEEDED + _OPTIONAL)}", file=path, line=number)
        if name in found:
            raise InputError(f"'{name}' stands here twice", file=path, line=number)
        value = _plain(rest.strip(), path, number)
        if name == "allow_root" and value not in ("true", "false", ""):
            raise InputError(f"allow_root is true or false, not '{value}'", file=path, line=number)
        if name == "server" and value:
            for address in value.replace(",", " ").split() or [value]:
                if not _is_address(address):
                    raise InputError(f"'{address}' is not an address: write tcp://HOST:PORT, several with blanks between", file=path, line=number)
        if name == "server_key" and len(value) != 40:
            raise InputError("server_key is not a public key (40 characters, in quotes)", file=path, line=number)
        if name == "instance" and not is_plain_name(value):
            raise InputError(f"'{value}' is not the name of an instance", file=path, line=number)
        found[name] = value
    for name in _NEEDED:
        if not found.get(name):
            raise InputError(f"'{name}' is missing: copy client.yaml from the server's etc directory", file=path)
    return ClientConfig(
        instance=found["instance"],
        server=found["server"],
        server_key=found["server_key"],
        enrol_socket=found["enrol_socket"],
        userserver=found.get("userserver") or None,
        exec_server=found.get("exec_server") or None,
        allow_root=found.get("allow_root") == "true",
        etc=os.path.abspath(etc),
    )


def is_plain_name(text: str) -> bool:
    """Whether a text may be a part of a path: letters, digits, `.`, `_`, `-`; no leading dot or dash; at most 64 characters."""
    return 0 < len(text) <= 64 and text.isascii() and text[0] not in ".-" and all(each.isalnum() or each in "._-" for each in text)


def _checked(name: str) -> str:
    if not is_plain_name(name):
        raise InputError(f"'{name}' cannot be part of a path")
    return name


def _is_address(text: str) -> bool:
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    return text.startswith("tcp://") and bool(host and colon) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def _plain(text: str, path: str, number: int) -> str:
    """A YAML scalar of one line: in quotes as it is, bare up to a comment. Keys hold `#`, so they stand in quotes."""
    if text[:1] in ("'", '"'):
        value, closing, rest = text[1:].partition(text[0])
        if not closing or (rest.strip() and not rest.strip().startswith("#")):
            raise InputError("the quotes do not close, or something follows them", file=path, line=number)
        return value
    if text.startswith("#"):
        return ""
    value = text.split(" #", 1)[0].rstrip()
    return "" if value in ("~", "null") else value
