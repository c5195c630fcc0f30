"""The run book of a user-server: what was submitted, sent to a host and reported, so that it can be told to a database that was restored.

The ledger decides what may start and is never forgotten; the book is its long-winded brother: JSON lines, read only after a restore, in
two files of a limited size of which the older one goes. What it has lost the ledger still knows as over. Nothing waits for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from hq.errors import RemoteError
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec, Wishes
from hq.model.restored import Ranges, TaskWord
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.jobs import SubmitItem
from hq.protocol.specs import decode_spec

#: Bytes of a file, beyond which a new one begins and the one before the last is deleted.
MAX_SIZE = 64 << 20
#: Bytes that wait at most to be written; then the oldest are given up.
MAX_PENDING = 8 << 20
#: Bytes that are handed to another machine at once.
PIECE = 4 << 20
_KINDS = frozenset({RunKind.STARTED, RunKind.ENDED, RunKind.NEVER_STARTED})


class _Job(msgspec.Struct, frozen=True, array_like=True, tag="j"):
    id: int
    key: str
    body: bytes
    signature: bytes
    wishes: Wishes
    at: float


class _Blob(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    digest: str
    body: bytes


class _Sent(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    host: str
    runs: tuple[AttemptKey, ...]


class _Said(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    key: AttemptKey
    kind: RunKind
    at: float
    started: float | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    pid: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    reason: str = ""


class _Reported(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    host: str
    shift: float  # our clock minus that of the exec-server
    said: tuple[_Said, ...]


_ENCODE = msgspec.json.Encoder()
_DECODE = msgspec.json.Decoder(_Job | _Blob | _Sent | _Reported)


@dataclass(slots=True)
class JobEntry:
    """What a book says of one job. `tasks`: by index, the newest attempt and the reports about it, on our clock."""

    key: str = ""
    signed: SignedSpec | None = None
    wishes: Wishes = Wishes()
    submitted: float = 0.0
    tasks: dict[int, TaskWord] = field(default_factory=dict)


class RunBook:
    """The files. What cannot be written is tried again for a while, and then given up: the ledger, not the book, protects."""

    def __init__(self, path: str, log: logging.Logger, max_size: int = MAX_SIZE) -> None:
        self._path = path
        self._log = log
        self._max_size = max_size
        self._pending: list[bytes] = []
        self._waiting = 0
        self._noted: set[int | str] = set()  # jobs and blobs that stand in the present file
        self._trouble = ""
        self._fd = -1
        self._size = 0

    # --- what passes by -----------------------------------------------------------------------------------------------

    def submitted(self, jobs: Iterable[tuple[int, SubmitItem]], blobs: dict[str, bytes], at: float) -> None:
        """hq-server has taken these jobs, which name these sealed contents."""
        for digest, body in blobs.items():
            if digest not in self._noted:
                self._noted.add(digest)
                self._note(_Blob(digest, body))
        for id, item in jobs:
            self._noted.add(id)
            self._note(_Job(id, item.key, item.signed.body, item.signed.signature, item.wishes, at))

    def sent(self, host: str, orders: Iterable[StartOrder]) -> None:
        """These orders are for a host."""
        self._note(_Sent(host, tuple(order.key for order in orders)))

    def reported(self, host: str, shift: float, reports: Iterable[RunReport]) -> None:
        """Reports about runs on a host passed by."""
        said = tuple(
            _Said(r.key, r.kind, r.at, r.started, r.outcome, r.exit_code, r.signal, r.pid, r.max_rss, r.cpu, r.reason) for r in reports if r.kind in _KINDS
        )
        if said:
            self._note(_Reported(host, shift, said))

    def tick(self) -> None:
        """Write what was noted; begin a new file when this one is full."""
        if not self._pending:
            return
        data, self._pending, self._waiting = b"".join(self._pending), [], 0
        try:
            if self._fd < 0:
                self._open()
            elif self._size > self._max_size:
                os.close(self._fd)
                self._fd = -1
                os.replace(self._path, self._path + ".old")
                self._noted.clear()
                self._open()
            written = os.write(self._fd, data)
            self._size += written
            if written < len(data):
                self._keep(data[written:])
                raise OSError(28, "No space left on device")
        except OSError as error:
            if self._trouble != str(error):
                self._log.warning("the run book %s cannot be written: %s", self._path, error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def close(self) -> None:
        """Let go of the file."""
        self.tick()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def paths(self) -> tuple[str, ...]:
        """The files, the older one first."""
        return self._path + ".old", self._path

    def piece(self, offset: int) -> tuple[bytes, bool]:
        """A piece of both files together, for a user-server on another machine; whether it is the last one. Raises OSError."""
        self.tick()
        left, data = max(0, offset), b""
        for path in self.paths():
            try:
                with open(path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    if left < size:
                        file.seek(left)
                        data += file.read(PIECE - len(data))
                    left = max(0, left - size)
            except FileNotFoundError:
                continue
            if len(data) == PIECE:
                return data, False
        return data, True

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size
        if self._size:
            # a line that a crash cut short must not swallow the next one
            self._size += os.write(self._fd, b"\n")

    def _note(self, line: msgspec.Struct) -> None:
        self._keep(_ENCODE.encode(line) + b"\n")

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._waiting += len(data)
        while self._waiting > MAX_PENDING and len(self._pending) > 1:
            self._waiting -= len(self._pending.pop(0))


def read_book(paths: Iterable[str], jobs: Ranges, above: int) -> tuple[dict[int, JobEntry], dict[str, bytes]]:
    """What the files say of the jobs in these ranges of ids, and of all above one; and the sealed contents. Raises OSError."""
    spans = sorted(jobs)
    entries: dict[int, JobEntry] = {}
    blobs: dict[str, bytes] = {}
    wanted: dict[int, bool] = {}

    def entry(id: int) -> JobEntry | None:
        is_wanted = wanted.get(id)
        if is_wanted is None:
            is_wanted = wanted[id] = id > above or any(first <= id <= last for first, last in spans)
        if not is_wanted:
            return None
        found = entries.get(id)
        if found is None:
            found = entries[id] = JobEntry()
        return found

    for line in _lines(paths):
        if isinstance(line, _Blob):
            blobs[line.digest] = line.body
        elif isinstance(line, _Job):
            job = entry(line.id)
            if job is not None and _is_readable(line.body):
                job.key, job.signed, job.wishes, job.submitted = line.key, SignedSpec(line.body, line.signature), line.wishes, line.at
        elif isinstance(line, _Sent):
            for key in line.runs:
                _send(entry(key.job), key, line.host)
        else:
            for said in line.said:
                _report(entry(said.key.job), said, line.host, line.shift)
    return entries, blobs


def _is_readable(body: bytes) -> bool:
    try:
        decode_spec(body)
    except RemoteError:
        return False
    return True


def _send(job: JobEntry | None, key: AttemptKey, host: str) -> None:
    if job is not None and (key.index not in job.tasks or job.tasks[key.index].attempt < key.attempt):
        job.tasks[key.index] = TaskWord(index=key.index, attempt=key.attempt, host=host)


def _report(job: JobEntry | None, said: _Said, host: str, shift: float) -> None:
    if job is None:
        return
    _send(job, said.key, host)
    task = job.tasks[said.key.index]
    if task.attempt != said.key.attempt or task.host != host or any(report.kind is said.kind for report in task.reports):
        return  # reports are repeated until they are recorded
    started = None if said.started is None else said.started + shift
    report = RunReport(job=said.key.job, index=said.key.index, attempt=said.key.attempt, kind=said.kind, at=said.at + shift, pid=said.pid,
                       started=started, outcome=said.outcome, exit_code=said.exit_code, signal=said.signal, max_rss=said.max_rss,
                       cpu=said.cpu, reason=said.reason)  # fmt: skip
    job.tasks[said.key.index] = TaskWord(index=task.index, attempt=task.attempt, host=host, reports=(*task.reports, report))


def _lines(paths: Iterable[str]) -> Iterator[_Job | _Blob | _Sent | _Reported]:
    for path in paths:
        try:
            with open(path, "rb") as file:
                for text in file:
                    try:
                        yield _DECODE.decode(text)
                    except (msgspec.MsgspecError, ValueError):
                        continue  # cut by a crash
        except FileNotFoundError:
            continue
