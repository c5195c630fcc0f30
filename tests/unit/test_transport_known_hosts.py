"""known_hosts as ssh reads it."""

from __future__ import annotations

import base64
import hmac
from hashlib import sha1
from pathlib import Path

import pytest

from hq.userserver.transports.known_hosts import Verdict, fingerprint, judge, key_kinds, parse_known_hosts, read_known_hosts

KEY, OTHER = b"the key of the host", b"another key"
TEXT, OTHER_TEXT = base64.b64encode(KEY).decode(), base64.b64encode(OTHER).decode()


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def verdict(lines: list[str], name: str = "node1", key: bytes = KEY) -> Verdict:
    return judge(parse_known_hosts(lines, "f"), name, key)[0]


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("node1", "node1", Verdict.KNOWN),
        ("NODE1", "node1", Verdict.KNOWN),
        ("other,node1", "node1", Verdict.KNOWN),
        ("node?", "node1", Verdict.KNOWN),
        ("*.example", "a.example", Verdict.KNOWN),
        ("*,!node1", "node1", Verdict.UNKNOWN),
        ("node1", "[node1]:2222", Verdict.UNKNOWN),
        ("[node1]:2222", "[node1]:2222", Verdict.KNOWN),
        ("[node1]:*", "[node1]:2222", Verdict.KNOWN),
        ("[n]ode1", "node1", Verdict.UNKNOWN),
        (hashed("node1"), "node1", Verdict.KNOWN),
        (hashed("node1"), "Node1", Verdict.KNOWN),
        (hashed("node2"), "node1", Verdict.UNKNOWN),
        ("|1|broken", "node1", Verdict.UNKNOWN),
    ],
)
def test_names(names: str, name: str, expected: Verdict) -> None:
    assert verdict([f"{names} ssh-ed25519 {TEXT} a comment"], name) is expected


def test_another_key_is_a_changed_key() -> None:
    assert verdict([f"node1 ssh-ed25519 {OTHER_TEXT}"]) is Verdict.CHANGED


def test_one_of_several_keys_is_enough() -> None:
    assert verdict([f"node1 ssh-rsa {OTHER_TEXT}", f"node1 ssh-ed25519 {TEXT}"]) is Verdict.KNOWN


def test_a_revoked_key_is_revoked_even_if_it_is_known() -> None:
    lines = [f"node1 ssh-ed25519 {TEXT}", f"@revoked * ssh-ed25519 {TEXT}"]
    assert verdict(lines) is Verdict.REVOKED


def test_a_certificate_authority_vouches_for_no_plain_key() -> None:
    assert verdict([f"@cert-authority * ssh-ed25519 {TEXT}"]) is Verdict.UNKNOWN


def test_lines_that_are_none_are_passed_over() -> None:
    assert parse_known_hosts(["", "# node1 ssh-rsa AAAA", "node1", "node1 ssh-rsa ***"], "f") == []


def test_kinds_are_asked_for_in_the_order_of_the_file() -> None:
    lines = [f"node1 ssh-rsa {TEXT}", f"n2 ecdsa-sha2-nistp256 {TEXT}", f"node1 ssh-ed25519 {TEXT}", f"node1 ssh-rsa {OTHER_TEXT}"]
    assert key_kinds(parse_known_hosts(lines, "f"), "node1") == ["ssh-rsa", "ssh-ed25519"]


def test_files_that_are_not_there_are_empty(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe\nnode1 ssh-ed25519 " + TEXT.encode())
    entries = read_known_hosts([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [(entry.line, entry.key) for entry in entries] == [(2, KEY)]


def test_fingerprint_is_written_as_ssh_does() -> None:
    assert fingerprint(b"") == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
