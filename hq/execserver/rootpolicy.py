"""Whether this exec-server may run as root. Jobs as root are a mistake on a machine that others use, and normal in a container."""

from __future__ import annotations

import os

_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")


def is_container(root: str = "/") -> bool:
    """Whether this is a container: its maker left a mark, or the first process was told so in `container`."""
    if any(os.path.exists(os.path.join(root, mark.lstrip("/"))) for mark in _MARKS):
        return True
    try:
        with open(os.path.join(root, "proc/1/environ"), "rb") as file:
            return any(pair.startswith(b"container=") for pair in file.read().split(b"\0"))
    except OSError:
        return False


def root_refusal(uid: int, allow_root: bool, is_contained: bool) -> str | None:
    """Why it must not run, None if it may."""
    if uid != 0 or allow_root or is_contained:
        return None
    return (
        "jobs would run as root on this host: submit as an ordinary user, or if that is really meant, "
        "with --allow-root (and allow_root: true in client.yaml)"
    )
