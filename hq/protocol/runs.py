"""Messages about runs: hq-server → user-server → exec-server, and back. The user-server relays them batch by batch."""

from __future__ import annotations

from typing import ClassVar

from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome
from hq.protocol.base import DOWN, EXEC, USER, Message

RELAY = DOWN | USER


class RunStart(Message, frozen=True, kw_only=True, tag="run.start"):
    """Start these attempts on `host`. `specs`: the signed spec of each job that is named. Idempotent by attempt."""

    sent_by: ClassVar = RELAY
    host: str
    specs: dict[int, SignedSpec]
    orders: tuple[StartOrder, ...]


class RunStop(Message, frozen=True, kw_only=True, tag="run.stop"):
    """End these attempts: TERM, grace, KILL. An attempt that never started is reported as such and never will start. `outcome`: what it becomes."""

    sent_by: ClassVar = RELAY
    host: str
    runs: tuple[AttemptKey, ...]
    outcome: Outcome = Outcome.CANCELLED
    reason: str = ""
    is_only_queued: bool = False


class RunSignal(Message, frozen=True, kw_only=True, tag="run.signal"):
    """Send a signal to the processes of these attempts. STOP and CONT suspend and resume."""

    sent_by: ClassVar = RELAY
    host: str
    runs: tuple[AttemptKey, ...]
    signal: int


class RunHold(Message, frozen=True, kw_only=True, tag="run.hold"):
    """Keep these attempts from starting where they wait, or (`is_held` false) let them start again.

    What only waits for a slot of hq's own is given back instead (NEVER_STARTED, RETURNED); what has begun goes on.
    """

    sent_by: ClassVar = RELAY
    host: str
    runs: tuple[AttemptKey, ...]
    is_held: bool = True


class RunReported(Message, frozen=True, kw_only=True, tag="run.reported"):
    """What became of attempts on `host`. `sequence` rises with each message of an exec-server's spool; `sent` is the exec-server's clock on sending."""

    sent_by: ClassVar = EXEC | USER
    host: str
    sequence: int
    sent: float
    reports: tuple[RunReport, ...]


class RunRecorded(Message, frozen=True, kw_only=True, tag="run.recorded"):
    """All reports of `host` up to `sequence` are committed: the spool may forget them."""

    sent_by: ClassVar = RELAY
    host: str
    sequence: int


class RunRoll(Message, frozen=True, kw_only=True, tag="run.roll"):
    """All attempts that the exec-server on `host` has (queued, running, or ended and not yet recorded), after it came (back). What hq-server
    believes to be there and is not in the roll was never received, or is unknown there."""

    sent_by: ClassVar = EXEC | USER
    host: str
    runs: tuple[AttemptKey, ...]


class BlobGet(Message, frozen=True, kw_only=True, tag="blob.get"):
    """Send me these sealed environments or scripts; up the chain until somebody has them."""

    sent_by: ClassVar = EXEC | USER
    answered_by: ClassVar = ("blob.put",)
    digests: tuple[str, ...]


class BlobPut(Message, frozen=True, kw_only=True, tag="blob.put"):
    """Sealed bytes by digest. A digest that nobody has is absent."""

    sent_by: ClassVar = RELAY
    blobs: dict[str, bytes]
    missing: tuple[str, ...] = ()


class ExecHello(Message, frozen=True, kw_only=True, tag="exec.hello"):
    """First word of an exec-server to its user-server, or to hq-server while that is away. `route` is the address by which it got through, with what failed before.

    `memory` names its journal: with another name it has forgotten what it was told before. Empty: it cannot tell.
    """

    sent_by: ClassVar = EXEC
    answered_by: ClassVar = ("exec.welcome", "peer.refused")
    version: str
    protocol: int
    boot: str
    host: str
    machine: str
    pid: int
    route: str = ""
    memory: str = ""


class ExecWelcome(Message, frozen=True, kw_only=True, tag="exec.welcome"):
    """The user-server's answer. `slots`: how many runs at once (further orders queue). `lease` as in peer.welcome."""

    sent_by: ClassVar = RELAY
    heartbeat: float
    epoch: int
    slots: int
    lease: float = 0.0
