"""The user's ssh configuration for one host, as far as paramiko can follow it. What it cannot follow is refused, never passed over.

The system's ssh (`transport: openssh`) reads its own configuration and has no use for this.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex
from dataclasses import dataclass
from io import StringIO

import paramiko

from hq.errors import RefusedError
from hq.model.host import HostSpec

SYSTEM_CONFIG = "/etc/ssh/ssh_config"
DEFAULT_IDENTITIES = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_KEYWORD = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)")
_INCLUDE_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """Where and how to log in. `known_name` is the name in known_hosts; the first of `known_hosts` is where the user would add a key."""

    address: str
    hostname: str
    port: int
    user: str
    known_name: str
    identities: tuple[str, ...]
    has_own_identities: bool  # IdentityFile is set: no default keys
    certificates: tuple[str, ...]  # CertificateFile; one beside an identity is found without
    identities_only: bool
    agent: str | None  # the socket of the agent to ask
    known_hosts: tuple[str, ...]
    connect_timeout: float | None

    @property
    def command(self) -> str:
        """The ssh command by which a person tries the same."""
        return shlex.join(["ssh", self.address])


def read_config_text(path: str, depth: int = 0) -> str:
    """The text of an ssh configuration with its Include lines followed. A file that is not there is empty.

    Raises RefusedError where paramiko's reader would understand something else than ssh does.
    """
    if depth > _INCLUDE_DEPTH:
        raise RefusedError(f"{path}: Include goes deeper than {_INCLUDE_DEPTH} files")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise RefusedError(f"cannot read your ssh configuration: {error}") from error
    out: list[str] = []
    is_in_block = False
    for line in lines:
        match = _KEYWORD.match(line)
        word = match[1].lower() if match else ""
        if word in ("host", "match"):
            is_in_block = True
        if match is None or word != "include":
            out.append(line)
            continue
        folder = "/etc/ssh" if path.startswith("/etc/ssh/") else os.path.expanduser("~/.ssh")
        for pattern in shlex.split(match[2], comments=True):
            for file in sorted(glob.glob(os.path.join(folder, os.path.expanduser(pattern)))):
                text = read_config_text(file, depth + 1)
                has_block = any(re.match(r"\s*(host|match)\b", inner, re.IGNORECASE) for inner in text.splitlines())
                if is_in_block and has_block:
                    raise RefusedError(
                        f"{path}: an Include inside a Host block whose file has Host blocks is not followed; "
                        "move the Include to the top, or set the host's transport to openssh in cluster.tab"
                    )
                out.append(text)
                if has_block:
                    out.append("Host *")
    return "\n".join(out) + "\n"


def _files(value: str) -> tuple[str, ...]:
    home = os.path.expanduser("~")
    names = [name.replace("%d", home) for name in shlex.split(value) if name.lower() != "none"]
    return tuple(os.path.expanduser(name) for name in names)


def _listed(value: object) -> tuple[str, ...]:
    """The files of an option that may be given several times, of which paramiko makes a list of some and a text of others."""
    names = value if isinstance(value, list) else [value] if value else []
    return tuple(os.path.expanduser(str(name).strip('"')) for name in names if str(name).lower() != "none")


def _number(options: paramiko.SSHConfigDict, name: str, place: str) -> int | None:
    text = options.get(name)
    if text is None or str(text).lower() == "none":
        return None
    if not str(text).isdigit():
        raise RefusedError(f"{place}: {name} '{text}' in your ssh configuration is no number")
    return int(text)


def _agent_socket(text: str) -> str | None:
    """The agent's socket by the value of IdentityAgent: a path, none, or the name of a variable that holds the path."""
    text = text.strip('"')
    if text.lower() == "none":
        return None
    if text == "SSH_AUTH_SOCK" or text.startswith("$"):
        return os.environ.get(text.removeprefix("$").strip("{}")) or None
    return os.path.expanduser(text)


def read_target(host: HostSpec) -> SshTarget:
    """What the user's and the system's ssh configuration say of the host.

    Raises RefusedError for what cannot be read, and for options that paramiko cannot follow.
    """
    place = f"host {host.name}"
    user, at, address = host.address.rpartition("@")
    if not address or address.startswith("-") or (at and not user):
        raise RefusedError(f"{place}: '{host.address}' is not an address for ssh; see cluster.tab")
    config = paramiko.SSHConfig()
    try:
        for path in (os.path.expanduser("~/.ssh/config"), SYSTEM_CONFIG):
            # Each file begins outside of any Host block, whatever the one before ended with.
            config.parse(StringIO("Host *\n" + read_config_text(path)))
        options = config.lookup(address)
    except (paramiko.SSHException, ValueError, KeyError, ImportError) as error:
        raise RefusedError(f"{place}: your ssh configuration cannot be followed: {error}; try 'transport: openssh'") from error
    for name in ("proxycommand", "proxyjump"):
        if str(options.get(name) or "none").lower() != "none":
            raise RefusedError(
                f"{place}: your ssh configuration has {name} for {address}, which transport 'ssh' does not follow; "
                "set the host's transport to openssh in cluster.tab"
            )
    port = _number(options, "port", place) or 22
    alias = options.get("hostkeyalias")
    hostname = options["hostname"]
    plain = alias or hostname
    identities = _listed(options.get("identityfile"))
    return SshTarget(
        address=host.address,
        hostname=hostname,
        port=port,
        user=user or options.get("user") or pwd.getpwuid(os.getuid()).pw_name,
        known_name=plain if alias or port == 22 else f"[{plain}]:{port}",
        identities=identities or tuple(os.path.expanduser(name) for name in DEFAULT_IDENTITIES),
        has_own_identities=bool(identities),
        certificates=_listed(options.get("certificatefile")),
        identities_only=str(options.get("identitiesonly", "no")).lower() == "yes",
        agent=_agent_socket(str(options.get("identityagent") or "SSH_AUTH_SOCK")),
        known_hosts=_files(options.get("userknownhostsfile") or DEFAULT_KNOWN_HOSTS)
        + _files(options.get("globalknownhostsfile") or SYSTEM_KNOWN_HOSTS),
        connect_timeout=_number(options, "connecttimeout", place),
    )
