"""The adopt words: what any two versions of hq say to each other, so that an upgrade orphans no long job. Frozen: fields may be added, with
a default; none may go, move or change its meaning. `tests/unit/test_protocol_adopt.py` holds bytes of each.
"""

from __future__ import annotations

from hq.protocol.base import Message, Problem
from hq.protocol.jobs import LogData, LogFetch
from hq.protocol.peers import PeerBye, PeerHeartbeat, PeerRefused, PeerShutdown
from hq.protocol.runs import ExecHello, ExecWelcome, RunRecorded, RunReported, RunRoll, RunSignal, RunStop

#: Of an exec-server and whoever is above it: who it is, what it has, what became of it; stop, signal, output.
ADOPT: tuple[type[Message], ...] = (
    ExecHello, ExecWelcome, PeerRefused, PeerHeartbeat, PeerBye, PeerShutdown, RunRoll, RunReported, RunRecorded, RunStop, RunSignal, LogFetch, LogData, Problem,
)  # fmt: skip
