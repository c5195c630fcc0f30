"""Messages about the peers themselves: hello, heartbeat, keys, hosts, facts."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from hq.model.host import HostSpec
from hq.model.rows import HostRow
from hq.model.states import LinkState
from hq.model.user import Role
from hq.protocol.base import ADMIN, ANYBODY, CLIENT, DOWN, EXEC, USER, Message


class PeerHello(Message, frozen=True, kw_only=True, tag="peer.hello"):
    """First word of a user-server to hq-server. `boot` is a random name of this process; `address` where clients and exec-servers reach it."""

    sent_by: ClassVar = USER
    answered_by: ClassVar = ("peer.welcome", "peer.refused")
    version: str
    protocol: int
    boot: str
    machine: str
    address: str
    sign_public: str = ""
    takeover: bool = False  # its user moves his user-server here: the one that is up is told to end
    lock: str = ""  # names the lock of the run directory, which it holds: an earlier one with the same lock is dead
    last_job: int = 0  # the highest id of a job that it has ever seen
    told: tuple[int, int] | None = None  # as in ledger.cancelled; None: it takes none


class PeerWelcome(Message, frozen=True, kw_only=True, tag="peer.welcome"):
    """hq-server's answer. `heartbeat` in seconds: how often to speak, at three times of silence a peer is suspect."""

    sent_by: ClassVar = DOWN
    version: str
    instance: str
    epoch: int
    user: str
    heartbeat: float
    hosts: tuple[HostSpec, ...]
    lease: float = 0.0  # after so many seconds of silence an exec-server ends what may be run again; 0: not said
    now: float = 0.0  # hq-server's clock (Unix time); 0: not said


class PeerRefused(Message, frozen=True, kw_only=True, tag="peer.refused"):
    """The peer may not come in: another user-server of the user is up (at `address`), a version too far away, a disabled user.

    `may_change`: not for good; say hello again after a pause.
    """

    sent_by: ClassVar = DOWN | USER
    reason: str
    address: str = ""
    may_change: bool = False


class PeerHeartbeat(Message, frozen=True, kw_only=True, tag="peer.heartbeat"):
    """I am here. Both ways on every link."""

    sent_by: ClassVar = DOWN | USER | EXEC


class PeerBye(Message, frozen=True, kw_only=True, tag="peer.bye"):
    """I stop now, in good order."""

    sent_by: ClassVar = DOWN | USER | EXEC
    reason: str = ""


class PeerAsk(Message, frozen=True, kw_only=True, tag="peer.ask"):
    """Ask a daemon for facts about itself. `what`: ping, info or status."""

    sent_by: ClassVar = CLIENT | ADMIN | USER
    answered_by: ClassVar = ("peer.facts", "problem")
    what: str = "info"


class PeerFacts(Message, frozen=True, kw_only=True, tag="peer.facts"):
    """Facts by name, in the order in which they should be shown."""

    sent_by: ClassVar = DOWN | USER | EXEC
    facts: dict[str, str | int | float | bool | None]


class LedgerAsk(Message, frozen=True, kw_only=True, tag="ledger.ask"):
    """The user moves his user-server to another machine: what does its ledger say?"""

    sent_by: ClassVar = CLIENT
    answered_by: ClassVar = ("ledger.told", "problem")
    with_book: bool = False  # the run book is asked for after that


class LedgerTold(Message, frozen=True, kw_only=True, tag="ledger.told"):
    """The ledger as its file holds it. The user-server that answered relays no start and takes no report any more."""

    sent_by: ClassVar = USER
    data: bytes
    has_book: bool = False  # it can be asked for its run book, too


class BookAsk(Message, frozen=True, kw_only=True, tag="book.ask"):
    """After ledger.ask: a piece of the run book, from a byte on."""

    sent_by: ClassVar = CLIENT
    answered_by: ClassVar = ("book.told", "problem")
    offset: int


class BookTold(Message, frozen=True, kw_only=True, tag="book.told"):
    """A piece of the run book. With the last one the user-server ends."""

    sent_by: ClassVar = USER
    data: bytes
    is_last: bool


class PeerShutdown(Message, frozen=True, kw_only=True, tag="peer.shutdown"):
    """Stop in good order; running jobs run on. `and_hosts`: a user-server first tells its idle exec-servers to stop too."""

    sent_by: ClassVar = CLIENT | USER
    answered_by: ClassVar = ("peer.bye",)
    and_hosts: bool = False


class HostsListed(Message, frozen=True, kw_only=True, tag="host.listed"):
    """The hosts changed: all of them, as now."""

    sent_by: ClassVar = DOWN
    hosts: tuple[HostSpec, ...]


class HostLink(Message, frozen=True, kw_only=True, tag="host.link"):
    """How the user's exec-server on a host stands. `reason` verbatim from ssh or the exec-server."""

    sent_by: ClassVar = USER
    host: str
    state: LinkState
    reason: str = ""


class HostLoad(Message, frozen=True, kw_only=True, tag="host.load"):
    """Load of the exec-server's machine. Memory in bytes."""

    sent_by: ClassVar = USER | EXEC
    host: str
    load1: float
    load5: float
    load15: float
    cores: int
    memory_total: int
    memory_free: int


class HostQuery(Message, frozen=True, kw_only=True, tag="host.query"):
    """List the hosts."""

    sent_by: ClassVar = CLIENT | USER
    answered_by: ClassVar = ("host.rows", "problem")


class HostRows(Message, frozen=True, kw_only=True, tag="host.rows"):
    """Answer to host.query."""

    sent_by: ClassVar = DOWN | USER
    rows: tuple[HostRow, ...]


class HostCheck(Message, frozen=True, kw_only=True, tag="host.check"):
    """Prove that the user's exec-server can run on a host: login, python, version, way back, limits, lingering."""

    sent_by: ClassVar = CLIENT
    answered_by: ClassVar = ("host.checked", "problem")
    host: str


class CheckStep(msgspec.Struct, frozen=True):
    """One step of a host check."""

    name: str
    is_ok: bool
    text: str


class HostChecked(Message, frozen=True, kw_only=True, tag="host.checked"):
    """Answer to host.check: the steps in order; after a failed one nothing follows that needs it."""

    sent_by: ClassVar = USER
    host: str
    steps: tuple[CheckStep, ...]


class KeyEnrol(Message, frozen=True, kw_only=True, tag="key.enrol"):
    """Register the connection's key (over a Unix socket: the key named). Over TCP `user` is a claim that must be proven by `token` or by a nonce file."""

    sent_by: ClassVar = ANYBODY
    answered_by: ClassVar = ("key.enrolled", "key.challenged", "problem")
    public: str
    role: Role
    sign_public: str = ""
    user: str = ""
    token: str = ""


class KeyRegister(Message, frozen=True, kw_only=True, tag="key.register"):
    """A user-server names the key of its user's exec-server on a host, so that it can come to hq-server by itself while the user-server is away."""

    sent_by: ClassVar = USER
    answered_by: ClassVar = ()
    host: str
    public: str


class KeyChallenged(Message, frozen=True, kw_only=True, tag="key.challenged"):
    """Prove the claim: make the file of `nonce` (hq.kernel.proofs) in your own home, where hq-server sees it as `path`; then send key.enrol again."""

    sent_by: ClassVar = DOWN
    path: str
    nonce: str


class KeyEnrolled(Message, frozen=True, kw_only=True, tag="key.enrolled"):
    """The key is registered for `user`."""

    sent_by: ClassVar = DOWN
    user: str
    role: Role
    proof: str
