"""TCP ports for servers that must be told theirs before they start, and keep it while they are down."""

from __future__ import annotations

import random
import socket

#: Below those that the kernel gives to whoever asks for any, and beside those of `hq-admin init`.
PORTS = range(10000, 20000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment, all different; nobody is given them by chance either."""
    chosen = random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = chosen.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
