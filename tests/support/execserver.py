"""An exec-server under test: a user-server's end that plays its part, real processes of hq-exec-server, jobs as a user signs them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from hq.kernel.bus import Peer
from hq.kernel.keys import Sealer, Signer, make_curve_pair, make_seal_key, make_sign_pair
from hq.kernel.places import exec_run_dir
from hq.kernel.zmqbus import ZmqServer
from hq.model.ids import PLAIN, AttemptKey
from hq.model.job import JobSpec, SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.base import Message
from hq.protocol.codec import envelope
from hq.protocol.runs import BlobGet, BlobPut, ExecHello, ExecWelcome, RunRecorded, RunReported, RunRoll, RunSignal, RunStart, RunStop
from hq.protocol.specs import encode_spec
from tests.support.wait import until

HOST = "alpha"
ROOT = Path(__file__).resolve().parents[2]
#: Seconds between heartbeats: `Upstream` sends none, so with short ones the link is dropped again and again, and what was said meanwhile is lost.
SELDOM = 60.0


class User:
    """Somebody with keys, who signs and seals."""

    def __init__(self, instance: str, name: str = "alice") -> None:
        self.instance = instance
        self.name = name
        self.sign_public, secret = make_sign_pair()
        self.seal_key = make_seal_key()
        self._signer = Signer(secret)
        self._sealer = Sealer(self.seal_key)
        self.blobs: dict[str, bytes] = {}

    def seal(self, data: bytes) -> str:
        """Seal an environment or script; returns its digest."""
        digest, sealed = self._sealer.seal(data)
        self.blobs[digest] = sealed
        return digest

    def spec(self, *argv: str | bytes, **fields: Any) -> JobSpec:
        """A job; one word is a shell command line."""
        words = tuple(os.fsencode(word) for word in argv)
        fields.setdefault("is_shell", len(words) == 1 and "script" not in fields)
        fields.setdefault("instance", self.instance)
        fields.setdefault("user", self.name)
        return JobSpec(key=secrets.token_hex(4), name=fields.pop("name", "test"), argv=words, **fields)

    def sign(self, spec: JobSpec) -> SignedSpec:
        """The spec as it travels."""
        body = encode_spec(spec)
        return SignedSpec(body, self._signer.sign(body))


class Upstream:
    """The user-server's end: welcomes, records what is reported, hands out blobs."""

    def __init__(self, user: User, slots: int = 4, heartbeat: float = SELDOM) -> None:
        self.user = user
        self.slots = slots
        self.heartbeat = heartbeat
        self.epoch = 1
        self.public, self._secret = make_curve_pair()
        self.exec_public, self.exec_secret = make_curve_pair()
        self.port = ZmqServer("tcp://127.0.0.1:0", self.public, self._secret)
        self.number = self.port.port
        self.is_recording = True
        self.is_welcoming = True
        self.peer: Peer | None = None
        self.heard: list[Message] = []
        self.reports: list[RunReport] = []
        self.rolls: list[RunRoll] = []
        self.hellos: list[ExecHello] = []
        self._requests = 0
        self.answers: dict[int, Message] = {}
        self._jobs = 0

    def close(self) -> None:
        """Be gone."""
        self.port.close()

    def come_back(self) -> None:
        """Listen again on the same port."""
        self.port = ZmqServer(f"tcp://127.0.0.1:{self.number}", self.public, self._secret)

    def send(self, *messages: Message) -> None:
        """Say something to the exec-server."""
        assert self.peer is not None
        self.port.send(envelope(*messages, epoch=self.epoch), self.peer)

    def pump(self) -> None:
        """Take in and answer what has arrived."""
        for received in self.port.receive():
            assert received.letter is not None, received.note
            assert received.peer.key == self.exec_public
            self.peer = received.peer
            for message in received.letter.messages:
                if received.letter.re:
                    self.answers[received.letter.re] = message
                self._take(message)

    def _take(self, message: Message) -> None:
        self.heard.append(message)
        if isinstance(message, ExecHello):
            self.hellos.append(message)
            if self.is_welcoming:
                self.send(ExecWelcome(heartbeat=self.heartbeat, epoch=self.epoch, slots=self.slots))
        elif isinstance(message, RunReported):
            self.reports.extend(message.reports)
            if self.is_recording:
                self.send(RunRecorded(host=message.host, sequence=message.sequence))
        elif isinstance(message, RunRoll):
            self.rolls.append(message)
        elif isinstance(message, BlobGet):
            blobs = {digest: self.user.blobs[digest] for digest in message.digests if digest in self.user.blobs}
            self.send(BlobPut(blobs=blobs, missing=tuple(set(message.digests) - set(blobs))))

    def start(self, *specs: JobSpec, index: int = PLAIN, attempt: int = 1, slots: int = 1) -> list[AttemptKey]:
        """Order one attempt of each; job numbers rise."""
        signed, orders = {}, []
        for spec in specs:
            self._jobs += 1
            signed[self._jobs] = self.user.sign(spec)
            orders.append(StartOrder(self._jobs, index, attempt, tuple(range(slots))))
        self.send(RunStart(host=HOST, specs=signed, orders=tuple(orders)))
        return [order.key for order in orders]

    def stop(self, key: AttemptKey, outcome: Outcome = Outcome.CANCELLED, reason: str = "cancelled by test") -> None:
        """Order a stop."""
        self.send(RunStop(host=HOST, runs=(key,), outcome=outcome, reason=reason))

    def signal(self, key: AttemptKey, number: int) -> None:
        """Order a signal."""
        self.send(RunSignal(host=HOST, runs=(key,), signal=number))

    def ask(self, message: Message, timeout: float = 60) -> Message:
        """A request and its answer."""
        self._requests += 1
        assert self.peer is not None
        self.port.send(envelope(message, id=self._requests), self.peer)
        self.until(lambda: self._requests in self.answers, f"answer to {message}", timeout)
        return self.answers[self._requests]

    def until(self, condition: Any, what: str, timeout: float = 60) -> Any:
        """Pump until something holds."""

        def look() -> Any:
            self.pump()
            return condition()

        return until(look, timeout, what)

    def find(self, key: AttemptKey, *kinds: RunKind) -> RunReport | None:
        """The last report of these kinds about an attempt."""
        found = [report for report in self.reports if report.key == key and report.kind in kinds]
        return found[-1] if found else None

    def started(self, key: AttemptKey) -> RunReport:
        """Wait until it started."""
        return self.until(lambda: self.find(key, RunKind.STARTED, RunKind.ENDED), f"start of {key}")  # type: ignore[no-any-return]

    def ended(self, key: AttemptKey, timeout: float = 60) -> RunReport:
        """Wait for its last report."""
        return self.until(lambda: self.find(key, RunKind.ENDED, RunKind.NEVER_STARTED), f"end of {key}", timeout)  # type: ignore[no-any-return]


class ExecSite:
    """A real exec-server on this machine, in a run directory of its own, which `close` ends and removes."""

    def __init__(self, root: Path, slots: int = 4, heartbeat: float = SELDOM) -> None:
        self.root = root
        self.instance = f"test-{secrets.token_hex(4)}"
        self.home = root / "home"
        self.work = root / "work"
        self.work.mkdir(parents=True)
        self.user = User(self.instance)
        self.upstream = Upstream(self.user, slots, heartbeat)
        self.run_dir = Path(exec_run_dir(self.instance, HOST))
        self.pid = 0
        self.idle = 600.0

    def line(self, **changes: Any) -> dict[str, Any]:
        """The start line."""
        return {
            "instance": self.instance, "host": HOST, "user": self.user.name,
            "upstreams": [f"tcp://127.0.0.1:{self.upstream.number}"], "upstream_key": self.upstream.public,
            "public": self.upstream.exec_public, "secret": self.upstream.exec_secret, "sign_public": self.user.sign_public,
            "seal_key": self.user.seal_key, "slots": self.upstream.slots, "heartbeat": self.upstream.heartbeat,
            "version": "0", "protocol": 1, "allow_root": True, "idle": self.idle, **changes,
        }  # fmt: skip

    def bootstrap(self, environment: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """The start dialogue; returns the answer."""
        done = subprocess.run(
            [sys.executable, "-m", "hq.execserver.main", "--bootstrap"], input=json.dumps(self.line(**changes)) + "\n", text=True,
            capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "HQ_HOME": str(self.home), **(environment or {})},
        )  # fmt: skip
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        if answer["ok"]:
            self.pid = answer["pid"]
        return answer

    def up(self) -> ExecSite:
        """Start, and wait until it is linked and has told its roll."""
        answer = self.bootstrap()
        assert answer["ok"], answer
        self.linked()
        return self

    def linked(self) -> None:
        """Wait for the next roll."""
        before = len(self.upstream.rolls)
        self.upstream.until(lambda: len(self.upstream.rolls) > before, "roll of the exec-server")

    def worker_pid(self) -> int:
        """The worker's pid, as it said hello."""
        return self.upstream.hellos[-1].pid

    def spec(self, *argv: str | bytes, **fields: Any) -> JobSpec:
        """A job in the work directory."""
        fields.setdefault("cwd", os.fsencode(self.work))
        return self.user.spec(*argv, **fields)

    def run(self, *argv: str | bytes, timeout: float = 60, **fields: Any) -> RunReport:
        """Start a job and wait for its end."""
        (key,) = self.upstream.start(self.spec(*argv, **fields))
        return self.upstream.ended(key, timeout)

    def output(self, job: int, suffix: str = "out") -> bytes:
        """What a plain job wrote to its default output file."""
        return (self.home / self.instance / "output" / str(job) / f"{job}.{suffix}").read_bytes()

    def log_text(self) -> str:
        """The daemon's log and what it said on stderr."""
        return "".join(path.read_text() for path in sorted(self.run_dir.glob("log/*")))

    def close(self) -> None:
        """End the daemon and every process that it has, and remove its directory."""
        self.upstream.close()
        if self.pid:
            pids = [self.pid, *descendants(self.pid)]
            for _ in range(5):
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                pids = [pid for pid in pids if is_alive(pid)]
                if not pids:
                    break
            until(lambda: not any(is_alive(pid) for pid in pids), 60, "end of the exec-server")
        # the parent is the instance's own: nobody else has one of this name
        shutil.rmtree(self.run_dir.parent, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """All below a process."""
    found: list[int] = []
    try:
        children = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    except OSError:
        return found
    for child in children:
        found += [child, *descendants(child)]
    return found
