"""What the exec-servers of synthetic hosts say of their batch systems and pilots, for `hq-client status`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hq.model.batch import BATCH_BACKENDS
from hq.protocol.base import Message
from hq.protocol.peers import PeerAsk, PeerFacts

if TYPE_CHECKING:
    from hq.userserver.server import UserServer

#: So long an answer may take (seconds): status is for people.
PATIENCE = 3.0
#: What every exec-server says of itself, and what is of no interest here.
_COMMON = frozenset({"version", "host", "user", "pid", "route", "control groups", "slots", "slots in use", "runs", "reports not yet recorded"})


def ask_centres(server: UserServer, then: Callable[[dict[str, str]], None]) -> None:
    """Ask those that are linked; `then` gets one fact a host, once all have answered or their time is over. No exec-server is started."""
    hosts = [host for host, spec in server.execs.hosts.items() if spec.backend in BATCH_BACKENDS and server.execs.links.is_alive(host)]
    told: dict[str, str] = {}
    left = set(hosts)

    def ask(host: str) -> None:
        def answered(answer: Message) -> None:
            if isinstance(answer, PeerFacts):
                told[f"at {host}"] = "; ".join(f"{name}: {value}" for name, value in answer.facts.items() if name not in _COMMON)
            left.discard(host)
            if not left:
                then(dict(sorted(told.items())))

        if not server.execs.ask(host, PeerAsk(what="status"), answered, PATIENCE):
            left.discard(host)

    for host in hosts:
        ask(host)
    if not hosts or not left:
        then(told)
