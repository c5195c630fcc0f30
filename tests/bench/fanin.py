"""The row `fan-in`: a thousand exec-servers that are played here report to a real hq-server on MariaDB, over real ZeroMQ on loopback.

Ten users have a user-server each (played, too), every one with a hundred exec-servers of 64 slots. A task lasts 0.6 s and ends when it is due
and the rate allows. What is measured: ends that were acknowledged, how many were ever under way, and the CPU of hq-server.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque

import psutil

from hq.db.engine import open_engine
from hq.db.store import Store
from hq.kernel.keys import Signer, make_curve_pair, make_sign_pair
from hq.kernel.places import read_client_config
from hq.kernel.zmqbus import ZmqClient
from hq.model.changes import Changes
from hq.model.job import JobSpec, SignedSpec, Wishes
from hq.model.runs import RunReport
from hq.model.states import LinkState, Outcome, RunKind
from hq.model.user import KeyRecord, Role
from hq.protocol.base import PROTOCOL, Message
from hq.protocol.codec import envelope
from hq.protocol.jobs import JobSubmit, SubmitItem
from hq.protocol.peers import HostLink, PeerHeartbeat, PeerHello, PeerWelcome
from hq.protocol.runs import RunRecorded, RunReported, RunStart
from hq.protocol.specs import encode_spec
from tests.bench.lines import Line
from tests.bench.rig import Rig, rig
from tests.support.wait import until

USERS, HOSTS, SLOTS = 10, 100, 64
RATE = 5000.0
LASTS = 0.6
SECONDS = 20.0
#: Reports go up so often, as exec-servers hold them together (seconds).
ROUND = 0.05


class Played:
    """One user-server and its exec-servers."""

    def __init__(self, user: str, address: str, server_key: str, public: str, secret: str) -> None:
        self.user = user
        self.port = ZmqClient(address, server_key, public, secret)
        self.is_in = False
        self.began: deque[tuple[float, str, RunReport]] = deque()  # when due, host, its end
        self.known: set[tuple[int, int, int]] = set()
        self.sequences: dict[str, int] = {}
        self.under_way: dict[tuple[str, int], int] = {}  # (host, sequence) → ends that are not acknowledged
        self.open = 0

    def take(self, now: float) -> int:
        """Read what has come. Returns how many ends were acknowledged."""
        done = 0
        for received in self.port.receive():
            for message in received.letter.messages if received.letter else ():
                if isinstance(message, PeerWelcome):
                    self.is_in = True
                elif isinstance(message, RunStart):
                    self._start(message, now)
                elif isinstance(message, RunRecorded):
                    for key in [key for key in self.under_way if key[0] == message.host and key[1] <= message.sequence]:
                        done += self.under_way.pop(key)
        self.open -= done
        return done

    def _start(self, message: RunStart, now: float) -> None:
        for order in message.orders:
            if tuple(order.key) not in self.known:
                self.known.add(tuple(order.key))
                wall = time.time()
                end = RunReport(job=order.job, index=order.index, attempt=order.attempt, kind=RunKind.ENDED, at=wall + LASTS, started=wall, pid=4711,
                                outcome=Outcome.OK, exit_code=0, max_rss=1 << 20, cpu=0.001)  # fmt: skip
                self.began.append((now + LASTS, message.host, end))

    def report(self, now: float, budget: int) -> int:
        """Report ends that are due, at most so many. Returns how many."""
        by_host: dict[str, list[RunReport]] = {}
        count = 0
        while self.began and self.began[0][0] <= now and count < budget:
            _, host, end = self.began.popleft()
            by_host.setdefault(host, []).append(end)
            count += 1
        messages: list[Message] = []
        for host, ends in by_host.items():
            sequence = self.sequences[host] = self.sequences.get(host, 0) + 1
            self.under_way[host, sequence] = len(ends)
            messages.append(RunReported(host=host, sequence=sequence, sent=time.time(), reports=tuple(ends)))
        self.open += count
        if messages:
            assert self.port.send(envelope(*messages)), "hq-server does not read"
        return count


def _enrol(made: Rig) -> list[Played]:
    """Keys for the played user-servers, put into the database while hq-server is down."""
    names = made.site.users[1:]
    pairs = {name: make_curve_pair() for name in names}
    pid = made.site.server_pid()
    made.site.admin("shutdown").ok()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 30, "the end of hq-server")
    assert made.url is not None
    engine = open_engine(made.url)
    keys = [KeyRecord(public=public, user=name, role=Role.USER_SERVER, created=time.time()) for name, (public, _) in pairs.items()]
    Store(engine).write(Changes(keys={key.public: key for key in keys}))
    engine.dispose()
    made.site.start_server()
    config = read_client_config(str(made.site.etc))
    return [Played(name, config.server, config.server_key, *pairs[name]) for name in names]


def _come(players: list[Played], instance: str, hosts: list[str], count: int) -> None:
    """All say hello, tell of their exec-servers, and submit an array that outlasts the row."""
    signer = Signer(make_sign_pair()[1])
    end = time.monotonic() + 30
    for number, player in enumerate(players):
        hello = PeerHello(version="0", protocol=PROTOCOL, boot=f"b{number}", machine="bench", address=f"bench:{number + 1}")
        while not player.port.send(envelope(hello, id=1)):
            assert time.monotonic() < end, "hq-server cannot be reached"
            time.sleep(0.02)
    while not all(player.is_in for player in players):
        assert time.monotonic() < end, "hq-server does not let the user-servers in"
        for player in players:
            player.take(time.monotonic())
        time.sleep(0.02)
    for player in players:
        spec = JobSpec(instance=instance, user=player.user, key="fan-in", name="true", argv=(b"/bin/true",), indices=f"1-{count}", is_rerunnable=True)
        body = encode_spec(spec)
        item = SubmitItem(spec.key, SignedSpec(body, signer.sign(body)), Wishes(hosts=tuple(hosts)))
        links = [HostLink(host=host, state=LinkState.ALIVE) for host in hosts]
        assert player.port.send(envelope(*links)) and player.port.send(envelope(JobSubmit(items=(item,)), id=2))


def fan_in(repeats: int, count: int) -> list[Line]:
    """5,000 ends a second (as many seconds as there are repeats, times 20)."""
    if os.geteuid() != 0:
        print("fan-in: needs the right to make users (root)")
        return []
    hosts = [f"spare{number}" for number in range(HOSTS)]
    with rig("mariadb", users=USERS + 1, hosts=HOSTS, slots=SLOTS) as made:
        players = _enrol(made)
        _come(players, made.site.instance, hosts, 1_000_000)
        server = psutil.Process(made.site.server_pid())
        begin = beaten = last = time.monotonic()
        used: float | None = None
        counted = done = 0
        allowed = 0.0
        most: list[int] = []
        latest = begin + 5.0 + SECONDS * repeats
        while (now := time.monotonic()) < latest:
            acknowledged = sum(player.take(now) for player in players)
            if now - begin >= 5.0:  # by then the hosts are full and the ends are spread
                if used is None:
                    used, counted = sum(server.cpu_times()[:2]), 0
                    started = now
                done += acknowledged
                most.append(sum(player.open for player in players))
            if now - last >= ROUND:
                allowed = min(allowed + RATE * (now - last), RATE)
                last = now
                for player in players:
                    sent = player.report(now, int(allowed / len(players)) + 1)
                    allowed -= sent
                    counted += sent
            if now - beaten >= 2.0:
                beaten = now
                for player in players:
                    player.port.send(envelope(PeerHeartbeat()))
            time.sleep(0.005)
        assert used is not None
        took = time.monotonic() - started
        share = (sum(server.cpu_times()[:2]) - used) / took
        for player in players:
            player.port.close()
    backlog = statistics.median(most[-len(most) // 5 :])
    return [
        Line("fan-in", f"ends acknowledged, {counted / took:,.0f}/s were reported", done / took, "/s", "≥ 5,000/s", done / took >= 0.98 * RATE),
        Line("fan-in", "ends under way in the last fifth of the time", backlog, "", "no backlog: below a second's", backlog < RATE),
        Line("fan-in", "CPU of hq-server", share, "cores", "≤ 1", share <= 1),
        Line("fan-in", "CPU of hq-server for one end and the next start", 1e6 * share * took / max(1, done), "µs"),
    ]


FAN_IN_ROWS = {"fanin": fan_in}
