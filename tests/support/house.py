"""The whole house in one process: real hq-server on SQLite, real user-server, real exec-server on imitated processes; bus and clock in hand.

Each message, journal write, commit and process is a *point* of the daemon that is at work, right after it was done. `crash = (daemon, k)`
kills it at its k-th point, as KILL would: nothing more is written or sent, what it had not read is lost. The next round starts it again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
from sqlalchemy import Engine, select

from hq.db import tables
from hq.execserver.app import ExecServer
from hq.execserver.bootstrap import parse_bootstrap
from hq.kernel.bus import MemoryBus, MemoryPort, Peer, Received
from hq.kernel.clock import Now
from hq.kernel.daemon import InlineBackground
from hq.kernel.keys import Sealer, Signer
from hq.kernel.log import open_log
from hq.model.host import HostSpec
from hq.model.ids import TaskKey
from hq.model.states import LinkState
from hq.protocol.base import PROTOCOL, Message
from hq.protocol.codec import Envelope
from hq.protocol.jobs import JobAct, JobAsk, JobRequest, JobSubmitted
from hq.protocol.peers import PeerHello
from hq.userserver import requests
from hq.userserver.access import AccessFile
from hq.userserver.door import Door
from hq.userserver.execs import ExecLinks
from hq.userserver.hosts import HostMemory, Routes
from hq.userserver.keyring import ExecKeys, load_keyring
from hq.userserver.ledger import LedgerFile
from hq.userserver.server import UserServer
from hq.userserver.spool import SubmissionSpool
from hq.userserver.starter import Starter
from hq.userserver.submit import Preparer
from hq.userserver.transports.base import Bootstrap
from hq.userserver.transports.base import Started as HostStarted
from hq.userserver.upstream import ServerLink
from tests.support.machine import Asker, FakeBackend, Machine
from tests.support.serverroom import CLUSTER_TAB, INSTANCE, USERS, InlineWriter, Room

SERVER, USER, WORKER = "server", "user", "worker"
DAEMONS = (SERVER, USER, WORKER)
#: Seconds of a round.
ROUND = 0.5
_KEY = "alice-key".ljust(40, "0")
_LOG = logging.getLogger("house")


class CrashError(BaseException):
    """A daemon dies here. No daemon catches it."""


class _NoEnroller:
    def begin(self, now: Now, done: Callable[[str | None], None]) -> None:
        raise AssertionError("the key is known")


class PointPort(MemoryPort):
    """A port whose every use is a point."""

    house: House

    def send(self, letter: Envelope, peer: Peer | None = None) -> bool:
        """As Port.send."""
        is_sent = super().send(letter, peer)
        self.house.point()
        return is_sent

    def receive(self, limit: int = 1000) -> list[Received]:
        """As Port.receive."""
        got = super().receive(limit)
        for _ in got:
            self.house.point()
        return got


class PointBus(MemoryBus):
    """A bus of such ports."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self._house = house

    def listen(self, address: str, key: str) -> MemoryPort:
        """As MemoryBus.listen."""
        return self._pointed(super().listen(address, key))

    def dial(self, address: str, key: str, server_key: str = "") -> MemoryPort:
        """As MemoryBus.dial."""
        return self._pointed(super().dial(address, key, server_key))

    def _pointed(self, port: MemoryPort) -> MemoryPort:
        port.__class__ = PointPort
        assert isinstance(port, PointPort)
        port.house = self._house
        return port


class HouseRoom(Room):
    """The server's room on our bus, each commit a point."""

    def __init__(self, directory: Path, house: House, engine: Engine | None) -> None:
        def writer(store: Any) -> InlineWriter:
            made = InlineWriter(store)
            store_write = store.write
            made.store = _Pointed(store, house, store_write)
            return made

        self._house_bus = PointBus(house)
        etc = directory / "etc"
        etc.mkdir()
        one_host = [line for line in CLUSTER_TAB.splitlines(keepends=True) if not line.startswith("two")]
        for name, content in (("cluster.tab", "".join(one_host)), ("users", USERS), ("hq.yaml", f"instance: {INSTANCE}\n")):
            (etc / name).write_text(content)
        super().__init__(directory, writer=writer, engine=engine)

    def start(self) -> None:
        """As Room.start."""
        self.bus = self._house_bus
        super().start()


class _Pointed:
    def __init__(self, store: Any, house: House, write: Callable[..., None]) -> None:
        self._store, self._house, self._write = store, house, write

    def write(self, changes: Any, epoch: int | None = None) -> None:
        self._write(changes, epoch)
        self._house.point()


class House:
    """All of it. A context manager. `engine`: a database with tables that is emptied and used, instead of a new one."""

    def __init__(self, directory: Path, engine: Engine | None = None) -> None:
        self.directory = directory
        self._engine = engine
        self.machine = Machine()
        self.crash: tuple[str, int] | None = None
        self.more_crashes: frozenset[tuple[str, int]] = frozenset()
        self.points = dict.fromkeys(DAEMONS, 0)
        self.crashes = 0
        self._at_work = ""
        self.user: UserServer | None = None
        self.worker: ExecServer | None = None
        self._ports = 7000
        self._bootstrap: Bootstrap | None = None
        self.is_worker_wanted = False
        self.asks: list[tuple[Message, Asker]] = []
        self._sent: set[int] = set()
        self.is_server_up = True
        self.load = 0.0  # of the machine: hq-server places by it

    def __enter__(self) -> House:
        self._patches = ExitStack()
        # daemons are killed here, never the machine
        self._patches.enter_context(patch.multiple(os, fsync=lambda fd: None, fdatasync=lambda fd: None, getloadavg=lambda: (self.load,) * 3))
        (self.directory / "room").mkdir()
        self.room = HouseRoom(self.directory / "room", self, self._engine)
        return self

    def __exit__(self, *error: object) -> None:
        self._drop_worker()
        self._drop_user()
        if self._engine is None:
            self.room.close()
        self._patches.close()

    def point(self) -> None:
        """The daemon that is at work does something that others may see."""
        if not self._at_work:
            return
        self.points[self._at_work] += 1
        place = (self._at_work, self.points[self._at_work])
        if place == self.crash or place in self.more_crashes:
            raise CrashError

    # --- what a user does -------------------------------------------------------------------------------------------

    def submit(self, *commands: tuple[str, str], key: str = "k", **fields: Any) -> Asker:
        """Submit a job for each (seconds, code); repeated with the same key until it is answered."""
        jobs = tuple(JobRequest(argv=(b"run", seconds.encode(), code.encode()), env=(b"A=b",), name="run", **fields) for seconds, code in commands)
        return self.ask(JobAsk(key=key, jobs=jobs, allow_root=True))

    def ask(self, message: Message) -> Asker:
        """A command asks."""
        asker = Asker()
        self.asks.append((message, asker))
        return asker

    def act(self, action: str, *tasks: TaskKey) -> Asker:
        """A command acts on jobs."""
        return self.ask(JobAct(action=action, selection=requests.Selection(tasks=tasks)))

    def ids(self, asker: Asker) -> list[int]:
        """The ids that a submission was told; one that was kept has none yet."""
        answer = asker.answers[-1]
        assert isinstance(answer, JobSubmitted), answer
        return [item.id for item in answer.items]

    # --- time -------------------------------------------------------------------------------------------------------

    def round(self, seconds: float = ROUND) -> None:
        """Let time pass, and everybody work twice."""
        self.room.clock.move(seconds)
        for _ in range(2):
            self._work(SERVER, self._tick_server)
            self._work(USER, self._tick_user)
            if self.is_worker_wanted:
                self._work(WORKER, self._tick_worker)

    def until(self, condition: Callable[[], bool], what: str, rounds: int = 600) -> None:
        """Rounds until something holds."""
        for _ in range(rounds):
            if condition():
                return
            self.round()
        raise AssertionError(f"not within {rounds * ROUND:.0f} s: {what}")

    def _work(self, daemon: str, tick: Callable[[], None]) -> None:
        self._at_work = daemon
        try:
            tick()
        except CrashError:
            self._at_work = ""
            self.crashes += 1
            {SERVER: self._drop_server, USER: self._drop_user, WORKER: self._drop_worker}[daemon]()
        finally:
            self._at_work = ""

    # --- the daemons ------------------------------------------------------------------------------------------------

    def _tick_server(self) -> None:
        if not self.is_server_up:
            self.room.start()
            self.is_server_up = True
        self.room.server.tick(self.room.clock.now())

    def _drop_server(self) -> None:
        self.room.port.close()
        self.is_server_up = False

    def restart_server(self) -> None:
        """A new hq-server on the database as it is now."""
        self._drop_server()

    def _tick_user(self) -> None:
        if self.user is None:
            self.user = self._make_user()
            self._sent.clear()
        for number, (message, asker) in enumerate(self.asks):
            if number not in self._sent and not asker.answers:
                self._sent.add(number)
                requests.handle(self.user, asker, message)
        self.user.tick(self.room.clock.now())

    def _drop_user(self) -> None:
        if self.user is not None:
            self._user_port.close()
            self._user_link.close()
            ledger = self.user.execs.ledger
            os.close(ledger._fd)
            if ledger.book._fd >= 0:
                os.close(ledger.book._fd)
            self.user.door.close()
            self.user = None

    def lose_user_disk(self) -> None:
        """The machine of the user-server is another one: no ledger, no book, no spool."""
        self._drop_user()
        shutil.rmtree(self.directory / "user")

    def _make_user(self) -> UserServer:
        place, now = self.directory / "user", self.room.clock.now()
        place.mkdir(exist_ok=True)
        self._ports += 1
        address = f"tcp://127.0.0.1:{self._ports}"
        keyring = load_keyring(str(self.directory / "keys"))
        keys = ExecKeys(str(self.directory / "keys"))
        keys.load()
        background = InlineBackground()
        self._user_port = self.room.bus.listen(address, keyring.public)
        memory = HostMemory(str(place / "hosts.json"), _LOG)
        starter = Starter(transport=self, background=background, routes=Routes(self._ports), keys=keys, keyring=keyring, memory=memory,
                          instance=INSTANCE, user="alice", heartbeat=5.0, server=(("server",), "server-key"))  # fmt: skip
        made: list[UserServer] = []
        ledger = LedgerFile(str(place / "ledger"), _LOG, now)
        self._point_writes(ledger)
        links = ExecLinks(port=self._user_port, starter=starter, memory=memory, log=_LOG, seed=1, heartbeat=5.0, ledger=ledger,
                          on_ended=lambda tasks: made[0].on_ended(tasks))  # fmt: skip
        boot = f"boot-{self._ports}"
        user = UserServer(
            instance=INSTANCE, user="alice", uid=1000, etc="", address=address, server_address="server", door=Door(_LOG, 1000, lambda sock: 1000),
            port=self._user_port, keys=keys, preparer=Preparer(INSTANCE, "alice", Signer(keyring.sign_secret), Sealer(keyring.seal_key)),
            spool=SubmissionSpool(str(place / "spool"), _LOG), background=background,
            access=AccessFile(None, host="login", port=self._ports, boot=boot, public=keyring.public), now=now, log=lambda name: _LOG, idle=None,
        )  # fmt: skip
        made.append(user)
        hello = PeerHello(version="0", protocol=PROTOCOL, boot=boot, machine="login", address=address, sign_public=keyring.sign_public, lock="lock-1")
        self._user_link = self.room.bus.dial("server", _KEY)
        upstream = ServerLink(
            self._user_link, "server", lambda: msgspec.structs.replace(hello, last_job=ledger.highest, told=ledger.told), _NoEnroller(), _LOG, now,
            on_message=user.on_message, on_welcome=user.on_welcome, on_refused=user.on_refused,
        )  # fmt: skip
        user.connect(upstream, links)
        return user

    def _tick_worker(self) -> None:
        if self.worker is None:
            assert self._bootstrap is not None
            self.worker = self._make_worker()
        self.worker.tick(self.room.clock.now())

    def _make_worker(self) -> ExecServer:
        place = self.directory / "exec"
        place.mkdir(mode=0o700, exist_ok=True)
        place.chmod(0o700)

        def load() -> Any:
            assert self._bootstrap is not None
            return msgspec.structs.replace(parse_bootstrap(self._bootstrap.to_line()), home=str(self.directory / "home"))

        told = load()
        worker = ExecServer(told, str(place), open_log("exec", None), lambda address: self.room.bus.dial(address, told.public if address != "server" else told.public),
                            self.room.clock.now(), load=load,
                            processes=lambda note, statuses, cgroups: FakeBackend(self.machine, self.room.clock, note, self.point))  # fmt: skip
        self._point_writes(worker.journal)
        return worker

    def _drop_worker(self) -> None:
        if self.worker is not None:
            self.worker.dialer.close()
            os.close(self.worker.journal._fd)
            self.worker = None

    def _point_writes(self, file: Any) -> None:
        flush = file.flush

        def pointed(*args: Any, **more: Any) -> Any:
            is_something = bool(file._pending)
            done = flush(*args, **more)
            if is_something:
                self.point()
            return done

        file.flush = pointed

    # --- as Transport -----------------------------------------------------------------------------------------------

    def start(self, host: HostSpec, bootstrap: Bootstrap, cancel: Any = None) -> HostStarted:
        """As Transport.start: there is one host."""
        self._bootstrap, self.is_worker_wanted = bootstrap, True
        if self.worker is not None:
            self.worker.reload(self.room.clock.now())
        return HostStarted(pid=1, machine=host.name)

    def release(self, host: HostSpec) -> None:
        """As Transport.release."""

    def close(self, host: HostSpec | None = None) -> None:
        """As Transport.close."""

    @property
    def is_linked(self) -> bool:
        """Whether the exec-server's link is up."""
        return self.user is not None and any(link.state is LinkState.ALIVE for _, link in self.user.execs.links)


def house_at(directory: Path, engine: Engine) -> House:
    """A house in a new directory, on a database that is emptied for it."""
    directory.mkdir()
    return House(directory, engine)


def history(house: House) -> dict[TaskKey, tuple[str, int | None, int]]:
    """What the database says of the tasks that have ended: outcome, exit code, attempt."""
    c = tables.task_history.c
    query = select(c.job, c.idx, c.outcome, c.exit_code, c.attempt)
    with house.room.engine.connect() as connection:
        return {TaskKey(row.job, row.idx): (row.outcome, row.exit_code, row.attempt) for row in connection.execute(query)}
