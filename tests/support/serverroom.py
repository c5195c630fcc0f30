"""hq-server without processes: bus in memory, a clock moved by hand, SQLite in a temporary directory, the real core and store."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Engine

from hq.db.engine import create_tables, open_engine
from hq.db.store import Store
from hq.kernel.bus import MemoryBus
from hq.kernel.clock import ManualClock
from hq.kernel.config import parse_server_config
from hq.kernel.daemon import InlineBackground
from hq.kernel.keys import Signer, digest_of, make_sign_pair
from hq.kernel.log import open_log
from hq.model.changes import Changes
from hq.model.job import JobSpec, SignedSpec, Wishes
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.model.user import KeyRecord, Role, UserRecord
from hq.protocol.admin import AdminAnswer, AdminRun
from hq.protocol.base import PROTOCOL, Message, Problem
from hq.protocol.codec import envelope
from hq.protocol.jobs import JobSubmit, JobSubmitted, SubmitItem
from hq.protocol.peers import HostLink, PeerHello, PeerWelcome
from hq.protocol.runs import RunReported, RunStart
from hq.protocol.specs import encode_spec
from hq.server.daemon import Server
from tests.support.dbrecords import clean

INSTANCE = "test-00000001"
CLUSTER_TAB = (
    "short_name\tfull_name\ttotal_number_slots\tmax_number_occupied_slots\tadditional_info\tallow_info_server\tinfo_server_port\tactive\ttransport\n"
    "# the big one\n"
    "one\tone.example\t4\t4\t-\tFalse\t0\tTrue\tlocal\n"
    "two\ttwo.example\t2\t2\t-\tFalse\t0\tTrue\tlocal\n"
)
USERS = "# who may submit\nalice\tuser\nbob\tuser\ncarol\tuser,admin\n"

M = TypeVar("M", bound=Message)


class Done(NamedTuple):
    token: Any
    error: BaseException | None


class InlineWriter:
    """Commits in the caller's thread. With `is_held` a commit stays under way until `let_go`; `error` refuses the next ones."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_held = False
        self.error: BaseException | None = None
        self.trouble: str | None = None
        self.submitted: list[tuple[Any, Changes]] = []
        self._done: list[Done] = []

    def submit(self, token: Any, changes: Changes) -> None:
        assert not self.submitted, "one commit at a time"
        self.submitted.append((token, changes))
        if not self.is_held:
            self.let_go()

    def let_go(self) -> None:
        for token, changes in self.submitted:
            if self.error is None:
                self.store.write(changes)
            self._done.append(Done(token, self.error))
        self.submitted.clear()

    def finished(self) -> list[Done]:
        done, self._done = self._done, []
        return done


class Room:
    """A server, its clock and the ways to it. `engine`: a database that has its tables, and is emptied."""

    def __init__(self, directory: Path, *, text: str = "", writer: Any = None, url: str | None = None, engine: Engine | None = None) -> None:
        self.directory = directory
        self.etc = directory / "etc"
        self.etc.mkdir(exist_ok=True)
        if not (self.etc / "users").exists():
            for name, content in (("cluster.tab", CLUSTER_TAB), ("users", USERS), ("hq.yaml", f"instance: {INSTANCE}\n{text}")):
                (self.etc / name).write_text(content)
        self.engine = engine or open_engine(url or f"sqlite:///{directory}/state.db")
        if engine is None:
            create_tables(self.engine)
        else:
            clean(engine)
        self.store = Store(self.engine)
        self.clock = ManualClock()
        self.bus = MemoryBus()
        self._writer_factory = writer or InlineWriter
        if not self.store.load().keys:
            self._seed()
        self.start()

    def _seed(self) -> None:
        changes = Changes()
        for name, roles in (("alice", {"user"}), ("bob", {"user"}), ("carol", {"user", "admin"})):
            changes.users[name] = UserRecord(name=name, roles=frozenset(roles))
            key = KeyRecord(public=f"{name}-key".ljust(40, "0"), user=name, role=Role.USER_SERVER, proof="test")
            changes.keys[key.public] = key
        key = KeyRecord(public="carol-admin".ljust(40, "0"), user="carol", role=Role.ADMIN, proof="test")
        changes.keys[key.public] = key
        self.store.write(changes)

    def start(self) -> None:
        """A (new) hq-server on the same database."""
        self.port = self.bus.listen("server", "server-key")
        self.writer = self._writer_factory(self.store)
        self.background = InlineBackground()  # what an earlier one had under way ended with it
        config = parse_server_config((self.etc / "hq.yaml").read_text(), "hq.yaml", str(self.etc))
        self.server = Server(instance=INSTANCE, etc=str(self.etc), config=config, port=self.port, store=self.store, writer=self.writer,
                             background=self.background, log=open_log("hq-server", str(self.directory)), now=self.clock.now(),
                             epoch=1)  # fmt: skip
        self.tick()

    def tick(self, seconds: float = 0.0, times: int = 4) -> float | None:
        """Let time pass, then tick until what a tick brought about has been dealt with."""
        if seconds:
            self.clock.move(seconds)
        deadline = None
        for _ in range(times):
            deadline = self.server.tick(self.clock.now())
        return deadline

    def client(self, key: str) -> Client:
        return Client(self, key.ljust(40, "0"))

    def user(self, name: str) -> UserServer:
        """A user-server that has said hello."""
        peer = UserServer(self, name)
        peer.hello()
        return peer

    def admin(self, *words: str) -> AdminAnswer:
        """What carol's hq-admin is answered."""
        return self.client("carol-admin").ask(AdminRun(words=words), AdminAnswer)

    def close(self) -> None:
        self.engine.dispose()


class Client:
    """A connection with a key."""

    def __init__(self, room: Room, key: str) -> None:
        self.room = room
        self.key = key
        self.port = room.bus.dial("server", key)
        self.ids = itertools.count(1)
        self.got: list[tuple[int, Message]] = []

    def send(self, *messages: Message) -> int:
        """Send a batch; the number of the request."""
        number = next(self.ids)
        assert self.port.send(envelope(*messages, id=number))
        return number

    def receive(self) -> list[Message]:
        """What has arrived since the last time, whatever it answers."""
        found = []
        for received in self.port.receive(1_000_000):
            assert received.letter is not None, received.note
            for message in received.letter.messages:
                self.got.append((received.letter.re, message))
                found.append(message)
        return found

    def answers(self, message: Message, *, ticks: int = 6) -> list[Message]:
        """Send, tick, and return the answers to this request."""
        number = self.send(message)
        self.room.tick(times=ticks)
        self.receive()
        return [answer for re, answer in self.got if re == number]

    def ask(self, message: Message, kind: type[M]) -> M:
        """The one answer, which must be of this kind."""
        answers = self.answers(message)
        assert len(answers) == 1 and isinstance(answers[0], kind), answers
        return answers[0]

    def refused(self, message: Message) -> str:
        """The text of the problem that is the answer."""
        return self.ask(message, Problem).text

    def all_of(self, kind: type[M]) -> list[M]:
        """Everything of one kind that ever arrived."""
        self.receive()
        return [message for _, message in self.got if isinstance(message, kind)]


class UserServer(Client):
    """A user-server's side, as far as tests need it."""

    def __init__(self, room: Room, name: str, *, boot: str = "boot-1", key: str | None = None) -> None:
        super().__init__(room, (key or f"{name}-key").ljust(40, "0"))
        self.name = name
        self.boot = boot
        self.sign_public, secret = make_sign_pair()
        self.signer = Signer(secret)
        self.keys = itertools.count(1)

    def hello_message(self, **changes: Any) -> PeerHello:
        values: dict[str, Any] = {"version": "0.1.0", "protocol": PROTOCOL, "boot": self.boot, "machine": "login", "address": f"tcp://login:1{self.boot}"}
        return PeerHello(**(values | changes))

    def hello(self) -> PeerWelcome:
        return self.ask(self.hello_message(), PeerWelcome)

    def item(self, *argv: str, wishes: Wishes | None = None, **spec: Any) -> SubmitItem:
        """A signed job."""
        key = f"{self.boot}-{next(self.keys)}"
        made = JobSpec(instance=INSTANCE, user=self.name, key=key, name=argv[0], argv=tuple(word.encode() for word in argv))
        made = replace(made, **spec)
        body = encode_spec(made)
        return SubmitItem(key, SignedSpec(body, self.signer.sign(body)), wishes or Wishes())

    def submit(self, *argv: str, wishes: Wishes | None = None, blobs: tuple[bytes, ...] = (), **spec: Any) -> int:
        """Submit one job; its id."""
        message = JobSubmit(items=(self.item(*argv, wishes=wishes, **spec),), blobs={digest_of(blob): blob for blob in blobs})
        return self.ask(message, JobSubmitted).items[0].id

    def link(self, host: str, state: Any) -> None:
        self.send(HostLink(host=host, state=state))
        self.room.tick()

    def orders(self) -> list[tuple[str, Any]]:
        """Start orders that arrived: (host, order)."""
        return [(start.host, order) for start in self.all_of(RunStart) for order in start.orders]

    def report(self, host: str, job: int, kind: RunKind, *, attempt: int = 1, index: int = -1, sequence: int = 0, **more: Any) -> None:
        """Send one report."""
        at = self.room.clock.now().wall
        report = RunReport(job=job, index=index, attempt=attempt, kind=kind, at=at, **more)
        self.send(RunReported(host=host, sequence=sequence, sent=at, reports=(report,)))
        self.room.tick()

    def run(self, job: int, *, exit_code: int = 0, index: int = -1) -> str:
        """Let an ordered task start and end; its host."""
        host = next(host for host, order in self.orders() if (order.job, order.index) == (job, index))
        self.report(host, job, RunKind.STARTED, index=index, pid=4711, started=self.room.clock.now().wall)
        self.room.tick(1.0)
        outcome = Outcome.FAILED if exit_code else Outcome.OK
        self.report(host, job, RunKind.ENDED, index=index, outcome=outcome, exit_code=exit_code, max_rss=1 << 20, cpu=0.5)
        return host
