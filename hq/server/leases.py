"""Looks after the leases of exec-servers: which links are silent now, and which have been for too long. The rule is in `hq.core.leases`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hq.core.events import HostLost
from hq.core.restored import is_awaited
from hq.model.quantities import format_seconds
from hq.model.states import LinkState

if TYPE_CHECKING:
    from hq.server.daemon import Server


def look(server: Server) -> None:
    """Tell the core which hosts are lost to whom."""
    for user, host, seconds in server.leases.look(_silent(server), server.now.boot, server.config.lease):
        why = server.cluster.link(user, host).reason
        reason = f"{host} has not been heard for {format_seconds(seconds)}" + (f" ({why})" if why else "")
        server.log.category("jobs").warning("%s is lost to %s: %s", host, user, reason)
        server.add(HostLost(user=user, host=host, reason=reason))


def _silent(server: Server) -> Iterator[tuple[str, str]]:
    """Links with runs that are not heard, of users whose user-server is here."""
    for name, host in server.cluster.hosts.items():
        for user in host.by_user:
            is_heard = server.cluster.link(user, name).state is LinkState.ALIVE or server.visits.of(user, name) is not None
            if server.sessions.of(user) is not None and not is_heard and not is_awaited(server.cluster, user):
                yield user, name
