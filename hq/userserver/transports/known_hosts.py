"""Reading known_hosts(5) the way ssh does: hashed names, patterns, negation, @revoked. It judges a key; it never adds one.

paramiko's own reader knows neither patterns nor @revoked, and would let a revoked key in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from hashlib import sha1, sha256


class Verdict(Enum):
    """What known_hosts says of a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line: where it stands, its marker, the names it is for, the key."""

    file: str
    line: int
    marker: str
    names: str
    kind: str
    key: bytes

    def is_for(self, name: str) -> bool:
        """Whether the line speaks of `name`, which is `host` or `[host]:port`."""
        name = name.lower()
        if self.names.startswith("|1|"):
            return _is_hashed(self.names, name)
        patterns = self.names.lower().split(",")
        if any(pattern.startswith("!") and _matches(name, pattern[1:]) for pattern in patterns):
            return False
        return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    # Only * and ? are special in known_hosts; fnmatch would also take the brackets of [host]:port.
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _is_hashed(names: str, name: str) -> bool:
    parts = names.split("|")
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (IndexError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), sha1).digest(), digest)


def parse_known_hosts(lines: Iterable[str], file: str) -> list[Entry]:
    """The entries of a file. A line that is no entry is passed over, as ssh does."""
    entries = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        entries.append(Entry(file, number, marker, words[0], words[1], key))
    return entries


def read_known_hosts(files: Sequence[str]) -> list[Entry]:
    """The entries of all files that can be read; one that is not there is no error."""
    entries = []
    for file in files:
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                entries += parse_known_hosts(stream, file)
        except OSError:
            continue
    return entries


def key_kinds(entries: Sequence[Entry], name: str) -> list[str]:
    """The kinds of keys known of `name`, in the file's order: what to ask the host for, so that it shows one that can be compared."""
    return list(dict.fromkeys(entry.kind for entry in entries if not entry.marker and entry.is_for(name)))


def has_authority(entries: Sequence[Entry], name: str) -> bool:
    """Whether certificates of some authority would prove the host's key."""
    return any(entry.marker == "@cert-authority" and entry.is_for(name) for entry in entries)


def judge(entries: Sequence[Entry], name: str, key: bytes) -> tuple[Verdict, Entry | None]:
    """What is known of `key` (its wire form) shown by `name`, and the line that says so."""
    ours = [entry for entry in entries if entry.is_for(name)]
    for entry in ours:
        if entry.marker == "@revoked" and entry.key == key:
            return Verdict.REVOKED, entry
    plain = [entry for entry in ours if not entry.marker]
    for entry in plain:
        if entry.key == key:
            return Verdict.KNOWN, entry
    return (Verdict.CHANGED, plain[0]) if plain else (Verdict.UNKNOWN, None)


def fingerprint(key: bytes) -> str:
    """A key's fingerprint as ssh prints it."""
    return "SHA256:" + base64.b64encode(sha256(key).digest()).decode().rstrip("=")
