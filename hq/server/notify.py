"""Tells systemd that hq-server is up (Type=notify). Without systemd nothing happens."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1` or `STOPPING=1` to the socket that systemd named. Returns whether somebody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return False
    return True
