"""Ways back through the ssh connections that started exec-servers: which are open, and which of them nobody came by.

Pure bookkeeping; that a connection is closed is `execs`' business.
"""

from __future__ import annotations


class WaysBack:
    """By host: the port of the way back that its start opened, and the route by which its exec-server came."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._routes: dict[str, str] = {}

    def opened(self, host: str, port: int) -> None:
        """A start opened a way back: `port` on the host's loopback."""
        self._ports[host] = port

    def came(self, host: str, route: str) -> None:
        """The exec-server on `host` said hello. That may be before its start has its answer."""
        self._routes[host] = route

    def left(self, host: str) -> None:
        """The exec-server is gone; the next one may come by another route."""
        self._routes.pop(host, None)

    def take_unused(self, host: str) -> bool:
        """Whether both are known and the exec-server came without the way back: true once a start, for then it is closed."""
        route = self._routes.get(host)
        if route is None or host not in self._ports:
            return False
        return f"127.0.0.1:{self._ports.pop(host)}" not in route
