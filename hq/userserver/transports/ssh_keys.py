"""The user's keys for one login, in the order in which ssh would try them: agent, files, and the certificates that go with them.

What cannot be used is noted with the reason, for the refusal. A key with a passphrase is used by the agent or not at all.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

import paramiko
from paramiko.agent import AgentSSH
from paramiko.message import Message
from paramiko.pkey import PublicBlob, UnknownKeyType

from hq.errors import HqError, RefusedError
from hq.userserver.transports.known_hosts import fingerprint
from hq.userserver.transports.ssh_config import SshTarget

_CERTIFICATE = "-cert-v01@openssh.com"


def login_keys(target: SshTarget, notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """Names and keys to try; a key with a certificate comes with it first, then alone."""
    certificates = _certificates(target, notes)
    for name, key in _keys(target, notes):
        for path, blob in certificates.items():
            if certifies(blob.key_blob, key.asbytes()):
                own, key.public_blob = key.public_blob, blob
                yield path, key
                key.public_blob = own
        yield name, key


def certifies(certificate: bytes, key: bytes) -> bool:
    """Whether a certificate (its wire form) is one of this public key: after its type and nonce it goes on as the key after its type."""
    vouched, plain = Message(certificate), Message(key)
    if vouched.get_text() != plain.get_text() + _CERTIFICATE:
        return False
    vouched.get_string()
    return bool(vouched.get_remainder().startswith(plain.get_remainder()))


def _keys(target: SshTarget, notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    from_agent = _agent_keys(target.agent, notes) if target.agent else []
    named = {blob.key_blob for path in target.identities if (blob := _public_blob(path + ".pub"))}
    chosen: list[paramiko.PKey] = [key for key in from_agent if key.asbytes() in named]
    others = [] if target.identities_only else [key for key in from_agent if key.asbytes() not in named]
    for key in chosen + ([] if target.has_own_identities else others):
        yield f"agent {fingerprint(key.asbytes())}", key
    in_agent = {key.asbytes() for key in chosen}
    for path in target.identities:
        if not os.path.exists(path):
            if target.has_own_identities:
                notes.append(f"{path}: not there")
            continue
        if (blob := _public_blob(path + ".pub")) is not None and blob.key_blob in in_agent:
            continue
        try:
            key = _read_key(path)
        except HqError as error:
            notes.append(str(error))
            continue
        if key.asbytes() not in in_agent:
            yield path, key
    if target.has_own_identities:
        for key in others:
            yield f"agent {fingerprint(key.asbytes())}", key


class _AgentAt(AgentSSH):
    """The agent at a socket; paramiko's own class knows the one of the environment only."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        self._connect(connection)  # type: ignore[attr-defined]  # its stubs leave it out


def _agent_keys(path: str, notes: list[str]) -> Sequence[paramiko.PKey]:
    try:
        keys = _AgentAt(path).get_keys()
    except (paramiko.SSHException, OSError) as error:
        notes.append(f"agent: {str(error) or type(error).__name__}")
        return []
    for key in keys:
        if key.name.endswith(_CERTIFICATE):
            # paramiko would send the type of the certificate with the bytes of the key
            key.public_blob = PublicBlob(key.name, key.blob)  # type: ignore[assignment]  # its stubs know the default only
    return keys


def _certificates(target: SshTarget, notes: list[str]) -> dict[str, PublicBlob]:
    """Certificates by file: beside the identities as ssh-keygen puts them, and those that the configuration names."""
    found = {path: blob for identity in target.identities if (blob := _public_blob(path := identity + "-cert.pub"))}
    for path in target.certificates:
        if (blob := _public_blob(path)) is not None:
            found[path] = blob
        else:
            notes.append(f"{path}: no certificate there")
    return found


def _public_blob(path: str) -> PublicBlob | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return PublicBlob.from_string(stream.read())
    except (OSError, ValueError, AttributeError):
        return None


def _read_key(path: str) -> paramiko.PKey:
    """A private key without a passphrase. Raises RefusedError in a few words that name the file."""
    try:
        if os.stat(path).st_mode & 0o077:
            raise RefusedError(f"{path}: readable by others, not used: chmod 600 {path}")
        key = paramiko.PKey.from_path(path)
        # a certificate that lies beside it is tried apart: it may have run out
        key.public_blob = None
        return key
    except TypeError as error:
        # cryptography's word for: a passphrase is missing.
        raise RefusedError(f"{path}: has a passphrase: ssh-add {path}") from error
    except (ValueError, OSError, paramiko.SSHException, UnknownKeyType) as error:
        raise RefusedError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
