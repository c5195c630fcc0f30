"""The journal: what the worker must know again after it died. Append-only JSON lines, rewritten when it has grown old.

An order stands here before its process is made, its status before the kernel forgets it, its reports until they are
recorded. Written by the worker alone. It holds signed specs, never an environment, a script or a key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hq.kernel.files import write_anew
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind

REWRITE_SIZE = 8 << 20


class Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One record. `t` says which; the rest is what that kind needs."""

    t: str  # boot, epoch, spec, order, starting, started, stop, ended, batch, recorded, seen
    key: tuple[int, int, int] | None = None
    job: int = 0
    body: bytes = b""
    signature: bytes = b""
    slots: tuple[int, ...] = ()
    tag: str = ""
    pid: int = 0
    starttime: int = 0
    outputs: tuple[tuple[int, int], ...] = ()
    at: float = 0.0
    code: int | None = None
    signal: int | None = None
    outcome: Outcome | None = None
    reason: str = ""
    sequence: int = 0
    reports: tuple[RunReport, ...] = ()
    boot: str = ""
    memory: str = ""
    reaper: str = ""  # who waits for the runs of a worker that died
    since: float = 0.0  # CLOCK_BOOTTIME
    ahead: bool = False


@dataclass(slots=True)
class Known:
    """What the journal says of one attempt that is not over."""

    order: StartOrder
    tag: str = ""  # not empty: its process was about to be made
    is_armed: bool = False  # it may have begun without a record of that, if the host crashed
    pid: int = 0  # not 0: it was made
    starttime: int = 0
    started: float | None = None
    since: float = 0.0  # CLOCK_BOOTTIME when that was
    outputs: tuple[tuple[int, int], ...] = ()
    stop: tuple[Outcome, str] | None = None
    ended: Line | None = None


@dataclass(slots=True)
class Recovered:
    """All that a journal says. `memory` names it: another name means that an earlier journal of this host is gone."""

    boot: str = ""
    memory: str = ""
    reaper: str = ""
    last: int = 0
    epoch: int = 0
    specs: dict[int, SignedSpec] = field(default_factory=dict)
    runs: dict[AttemptKey, Known] = field(default_factory=dict)
    seen: dict[AttemptKey, None] = field(default_factory=dict)
    batches: dict[int, tuple[RunReport, ...]] = field(default_factory=dict)
    bad_lines: int = 0


_ENCODE = msgspec.json.Encoder()
_DECODE = msgspec.json.Decoder(Line)


def read_journal(path: str) -> Recovered:
    """Read it back. A last line that was cut by a crash, or any that cannot be read, is counted and passed over."""
    found = Recovered()
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return found
    for text in lines:
        if not text:
            continue
        try:
            _apply(found, _DECODE.decode(text))
        except (msgspec.MsgspecError, ValueError):
            found.bad_lines += 1
    needed = {key.job for key in found.runs}
    found.specs = {job: signed for job, signed in found.specs.items() if job in needed}
    return found


def _apply(found: Recovered, line: Line) -> None:
    key = AttemptKey(*line.key) if line.key is not None else None
    known = found.runs.get(key) if key is not None else None
    if line.t == "boot":
        found.boot, found.memory, found.reaper, found.last = line.boot, line.memory, line.reaper, max(found.last, line.sequence)
    elif line.t == "epoch":
        found.epoch = line.sequence
    elif line.t == "spec":
        found.specs[line.job] = SignedSpec(line.body, line.signature)
    elif line.t == "order" and key is not None and key not in found.seen:
        found.runs[key] = Known(StartOrder(*key, line.slots, line.ahead))
    elif line.t == "seen" and key is not None:
        found.seen[key] = None
        found.runs.pop(key, None)
    elif line.t == "batch":
        found.batches[line.sequence] = line.reports
        found.last = max(found.last, line.sequence)
        for report in line.reports:
            if report.kind in (RunKind.ENDED, RunKind.NEVER_STARTED):
                found.seen[report.key] = None
                found.runs.pop(report.key, None)
    elif line.t == "recorded":
        for sequence in [each for each in found.batches if each <= line.sequence]:
            del found.batches[sequence]
    elif known is not None:
        if line.t == "starting":
            known.tag, known.started, known.since = line.tag, line.at, line.since
        elif line.t == "armed":
            known.is_armed = True
        elif line.t == "started":
            known.pid, known.starttime, known.outputs, known.started = line.pid, line.starttime, line.outputs, line.at
        elif line.t == "unstarted":
            known.tag = ""
        elif line.t == "stop" and line.outcome is not None:
            known.stop = (line.outcome, line.reason)
        elif line.t == "ended":
            known.ended = line


class Journal:
    """The open file. `note` collects, `flush` writes; what could not be written is kept and tried again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._pending: list[bytes] = []
        self.size = os.fstat(self._fd).st_size
        # a line that a crash cut short must not swallow the next one
        if self.size:
            self._pending.append(b"\n")

    def note(self, **fields: Any) -> None:
        """Add a record, see Line."""
        self._pending.append(_ENCODE.encode(Line(**fields)) + b"\n")

    def note_all(self, kind: str, keys: Iterable[AttemptKey]) -> None:
        """Add a record of this kind for each of these attempts."""
        for key in keys:
            self.note(t=kind, key=key)

    def flush(self, is_synced: bool = False) -> None:
        """Write what was noted; with `is_synced` it is on the disk on return. Raises OSError (disk full), and then keeps the records."""
        if self._pending:
            data = b"".join(self._pending)
            written = os.write(self._fd, data)
            self.size += written
            # a short write leaves its rest for the next time
            self._pending = [data[written:]] if written < len(data) else []
            if self._pending:
                raise OSError(28, "No space left on device")
        if is_synced:
            os.fdatasync(self._fd)

    @property
    def is_behind(self) -> bool:
        """Whether records wait for being written."""
        return bool(self._pending)

    def rewrite(self, lines: Iterable[Line]) -> None:
        """Replace the whole journal by these records, in one step. Raises OSError, and then the old one stands."""
        data = b"".join(_ENCODE.encode(line) + b"\n" for line in lines)
        fd = write_anew(self._path, data)
        os.close(self._fd)
        self._fd, self.size, self._pending = fd, len(data), []

    def close(self) -> None:
        """Close the file. What is pending must have been flushed."""
        os.close(self._fd)
