"""TCP ports for servers that must be told theirs before they start, and keep it while they are down."""

from __future__ import annotations

from hq.client.init import free_port

#: Below those that the kernel gives to whoever asks for any, and beside those of `hq-admin init`.
PORTS = range(10000, 20000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment, all different; nobody is given them by chance either."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port(PORTS))
    return list(found)
