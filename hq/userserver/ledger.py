"""The ledger on the disk: which tasks were started how often, append-only, replayed at the start of a user-server.

A line is written before the order that it speaks of is relayed, so that KILL loses none. It reaches the disk within a second: only a
power cut here *and* a hq-server that asks for what it must not could then repeat a start, and hq-server has written each start down
too before it orders it. While nothing can be written nothing is relayed. The rules are in `hq.core.ledger`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from hq.core.ledger import FAILURES, Slot, Terms, slot_of
from hq.errors import HqError
from hq.kernel.clock import Now
from hq.kernel.files import write_anew
from hq.model.ids import PLAIN, AttemptKey
from hq.model.job import SignedSpec
from hq.model.restored import Cancel
from hq.model.runs import RunReport, StartOrder
from hq.model.selection import Selection
from hq.model.states import Outcome, RunKind
from hq.protocol.jobs import SubmitItem
from hq.protocol.specs import decode_spec
from hq.userserver.book import RunBook
from hq.userserver.ends import End
from hq.userserver.ledgertext import OUTCOMES, LedgerFacts, job_line, told_line

SYNC_EVERY = 1.0
#: The file is written anew when it has grown past this and past twice its size after the last time (bytes).
REWRITE_SIZE = 8 << 20
#: Submissions are remembered for so long (seconds).
KEEP = 400 * 86400.0
MAX_JOBS = 200_000


class Verdict(NamedTuple):
    """What becomes of a batch of orders. `is_kept` False: the ledger cannot be written, nothing may be relayed now."""

    orders: tuple[StartOrder, ...]
    refused: dict[AttemptKey, str]
    is_kept: bool = True
    again: tuple[AttemptKey, ...] = ()  # those of `orders` that were noted before: their exec-server may have them


def _readable(key: str) -> str:
    """A submission key as it stands in a line: one that would break it is known by its digest."""
    return key if key.isprintable() else blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class LedgerFile(LedgerFacts):
    """The ledger of one user and instance. The caller holds the user-server's lock."""

    def __init__(self, path: str, log: logging.Logger, now: Now) -> None:
        """Replay what is there. Raises OSError."""
        super().__init__()
        self.trouble = ""
        self._path = path
        self._log = log
        self._now = now
        self._stopped: set[AttemptKey] = set()
        self._pending: list[bytes] = []
        self._names: dict[str, int] = {}  # account → its number in the file
        self._is_unsynced = False
        self._synced = now.boot
        self.is_retired = False  # another user-server goes on
        self._replay()
        self.rules.forget_before(now.wall - KEEP)
        self._fd, self._size, self._size_then = -1, 0, 0
        try:
            self._rewrite()
        except OSError as error:
            self._complain(error)
            self._go_on()
        self.book = RunBook(path + "-book", log)

    # --- what passes by -----------------------------------------------------------------------------------------------

    def admit(self, specs: Mapping[int, SignedSpec], orders: Iterable[StartOrder]) -> Verdict:
        """Which of these orders may be relayed, and are noted by that; and why not the others."""
        kept: list[StartOrder] = []
        refused: dict[AttemptKey, str] = {}
        again: list[AttemptKey] = []
        if self.is_retired:
            return Verdict((), {}, is_kept=False)
        for order in orders:
            terms = self._terms(order.job, specs.get(order.job))
            if terms is None:
                kept.append(order)  # it cannot start without its spec, and its exec-server says so
                continue
            why = self.rules.refusal(terms, order.index, order.attempt)
            if why is not None:
                refused[order.key] = why
                # no trouble: hq-server may have died before it recorded the end, and is told now
                self._log.info("%s is not relayed: %s", order.key, why)
                continue
            kept.append(order)
            slot = slot_of(terms, order.index)
            if not self.rules.is_noted(slot, order.attempt):
                self.rules.started(slot, order.attempt, self._now.wall)
                self._note(slot, "s", order.attempt)
            else:
                again.append(order.key)
        # also for what was noted before and could not be written then
        if not self.flush():
            return Verdict((), {}, is_kept=False)
        return Verdict(tuple(kept), refused, again=tuple(again))

    def reported(self, reports: Collection[RunReport], host: str = "", shift: float = 0.0) -> None:
        """Reports of `host` pass by: what never started does not count, what ended by itself is over. `shift`: our clock minus the host's."""
        self.book.reported(host, shift, reports)
        for report in reports:
            known = self._jobs.get(report.job)
            if known is None:
                continue
            terms = known[1]
            slot = slot_of(terms, report.index)
            if report.kind is RunKind.NEVER_STARTED:
                self._stopped.discard(report.key)
                if self.rules.never_started(slot, report.attempt):
                    self._note(slot, "n", report.attempt)
            elif report.kind is RunKind.ENDED:
                # one that was told to stop may have been on its way to be started again
                is_stopped = report.key in self._stopped
                self._stopped.discard(report.key)
                letter = "o" if report.outcome is Outcome.OK else "f" if report.outcome in FAILURES and not is_stopped else ""
                if letter and self.rules.ended(slot, report.attempt, OUTCOMES[letter], terms.retries):
                    self._note(slot, letter, report.attempt, terms.retries)
                    assert report.outcome is not None
                    self._note_end(slot, End(report.attempt, report.outcome, report.exit_code, report.signal))

    def end_of(self, key: AttemptKey) -> End | None:
        """How the task of an attempt ended by itself the last time, if that is still known; of one long ago only whether it ended well."""
        known = self._jobs.get(key.job)
        if known is None:
            return None
        slot = slot_of(known[1], key.index)
        end = self._ends.of(slot)
        if end is None and (outcome := self.rules.how(slot)) is not None:
            end = End(0, outcome, 0 if outcome is Outcome.OK else None)
        return end

    def _note_end(self, slot: Slot, end: End) -> None:
        self._ends.note(slot, end)
        if end.outcome is not Outcome.OK:  # that is known without
            self._write(f"e {self._names[slot.account]} {slot.number} {end.attempt} {end.words}\n")

    def stopped(self, runs: Iterable[AttemptKey]) -> None:
        """These were told to stop: how they end is not their own doing."""
        self._stopped.update(AttemptKey(*key) for key in runs)

    def welcomed(self, server_now: float) -> None:
        """hq-server let us in, and says what time it is."""
        if not self.since and server_now > 0:
            # one that was begun by an earlier version knows since its first account
            self.since = min([server_now, *(account.since for account in self.rules.accounts.values())])
            self._write(f"B {self.since!r} 0\n")
            self.flush()

    def submitted(self, jobs: Collection[tuple[int, SubmitItem]], blobs: dict[str, bytes]) -> None:
        """hq-server has taken these jobs of ours, which name these sealed contents. Their user is told after that."""
        self.book.submitted(jobs, blobs, self._now.wall)
        for job, item in jobs:
            self._terms(job, item.signed)
        self.flush()

    def cancelled(self, names: Iterable[str]) -> None:
        """The owner has cancelled these jobs and tasks, and hq-server says that nothing of them will start."""
        for name in names:
            job, _, index = name.partition("_")
            if job.isdigit() and int(job) in self._jobs:
                self._cancel(self._jobs[int(job)][1], int(index) if index.isdigit() else None)
        self.flush()

    def cancelled_by_others(self, cancels: Iterable[Cancel], told: tuple[int, int]) -> None:
        """Others than their owner have cancelled these. Now all such are known up to `told`."""
        for key, task, is_array in cancels:
            self._cancel(Terms(_readable(key), 0, False, is_array), task)
        if told != self.told:
            self.told = told
            self._write(told_line(told))
        self.flush()

    def _cancel(self, terms: Terms, index: int | None) -> None:
        """`index` None: the whole job. What has ended by itself is not cancelled after that; what is noted is not noted again."""
        is_all = terms.is_array and index is None
        slot = slot_of(terms, 0 if is_all else PLAIN if index is None else index)
        account = self.rules.accounts.get(slot.account)
        if account is not None and (account.is_cancelled or (not is_all and (slot.number in account.cancelled or slot.number in account.spent))):
            return
        self.rules.cancel(slot, self._now.wall, is_all=is_all)
        self._note(slot, "X" if is_all else "x", 0)

    def known_jobs(self) -> Iterable[tuple[int, Terms]]:
        """All jobs whose terms are remembered."""
        return ((job, terms) for job, (_, terms) in self._jobs.items())

    def granted(self, selection: Selection, names: Iterable[str]) -> None:
        """hq-server has requeued these in the owner's name, who asked for this selection."""
        asked = set(map(str, selection.tasks))
        for name in names:
            job, _, index = name.partition("_")
            if not job.isdigit() or int(job) not in self._jobs:
                continue
            is_meant = name in asked or job in asked or any(first <= int(job) <= last for first, last in selection.ranges)
            if (selection.tasks or selection.ranges) and not is_meant and not selection.is_all and not selection.is_last:
                continue
            terms = self._jobs[int(job)][1]
            slots = [slot_of(terms, int(index))] if index.isdigit() else self._open_of(terms)
            for slot in slots:
                self.rules.grant(slot)
                self._note(slot, "g", 0)
        self.flush()

    def _open_of(self, terms: Terms) -> list[Slot]:
        """The tasks of one job that have started and not ended."""
        if not terms.is_array:
            return [slot_of(terms, PLAIN)]
        account = self.rules.accounts.get(slot_of(terms, 0).account)
        return [Slot(f"a:{terms.key}", number) for number in account.open] if account is not None else []

    def _terms(self, job: int, signed: SignedSpec | None) -> Terms | None:
        known = self._jobs.get(job)
        if signed is None:
            return known[1] if known is not None else None
        if known is not None and known[0] == signed.signature:
            return known[1]
        try:
            spec = decode_spec(signed.body)
        except HqError as error:
            self._log.error("job %d came with a spec that cannot be read: %s", job, error)
            return None
        if len(self._jobs) >= MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        terms = Terms(_readable(spec.key), spec.retries, spec.is_rerunnable, bool(spec.indices))
        if known is None or known[1] != terms:
            self._write(job_line(job, terms))
            self.highest = max(self.highest, job)
        self._jobs[job] = (signed.signature, terms)
        return terms

    # --- the file -----------------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Write what could not be written."""
        self._now = now
        self.flush()

    def keep(self, now: Now) -> None:
        """Bring it to the disk now and then, begin a new file when the old one is mostly past. May take long: nothing should wait for it."""
        if self._is_unsynced and now.boot - self._synced >= SYNC_EVERY:
            self._synced = now.boot
            try:
                os.fdatasync(self._fd)
                self._is_unsynced = False
            except OSError as error:
                self._complain(error)
        if self._size > max(REWRITE_SIZE, 2 * self._size_then):
            try:
                self.rules.forget_before(now.wall - KEEP)
                self._rewrite()
            except OSError as error:
                self._size_then = self._size  # not at every tick
                self._complain(error)

    def wake(self) -> float | None:
        """When `tick` or `keep` has something to do."""
        if self._pending:
            return self._now.boot + SYNC_EVERY
        return self._synced + SYNC_EVERY if self._is_unsynced else None

    def flush(self) -> bool:
        """Write what was noted. False: it cannot be, and is tried again. The book comes first: it can tell of all that the ledger calls over."""
        self.book.tick()
        if not self._pending:
            return True
        data = b"".join(self._pending)
        try:
            written = os.write(self._fd, data)
            self._size += written
            self._is_unsynced = True
            # a short write leaves its rest for the next time
            self._pending = [data[written:]] if written < len(data) else []
            if self._pending:
                raise OSError(28, "No space left on device")
        except OSError as error:
            self._complain(error)
            return False
        self.trouble = ""
        return True

    def retire(self) -> None:
        """Relay nothing any more: another user-server goes on with what this one knew."""
        self.is_retired = True

    def read(self) -> bytes:
        """Everything that it says, for a user-server on another machine. Raises OSError."""
        self.flush()
        with open(self._path, "rb") as file:
            return file.read() + b"".join(self._pending)

    def close(self) -> None:
        """Let go of the file, with everything on the disk."""
        self.flush()
        self.book.close()
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._complain(error)
        os.close(self._fd)

    def _complain(self, error: OSError) -> None:
        if self.trouble != str(error):
            self._log.error("the ledger %s cannot be written, no job is started until it can be: %s", self._path, error)
        self.trouble = str(error)

    def _note(self, slot: Slot, letter: str, attempt: int, retries: int = 0) -> None:
        number = self._names.get(slot.account)
        if number is None:
            number = self._names[slot.account] = len(self._names)
            self._write(f"A {number} {self.rules.accounts[slot.account].since:.0f} {slot.account}\n")
        self._write(f"{letter} {number} {slot.number} {attempt}{f' {retries}' if retries else ''}\n")

    def _write(self, line: str) -> None:
        self._pending.append(line.encode("utf-8", "surrogateescape"))

    def _replay(self) -> None:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                bad = self.take_in(file.read().split("\n"))
        except FileNotFoundError:
            return
        if bad:
            self._log.warning("%d lines of the ledger %s could not be read", bad, self._path)

    def _go_on(self) -> None:
        """Append to the old file, for which there is no room anew: what runs can be told of, and is. Raises OSError."""
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = self._size_then = os.fstat(self._fd).st_size
        # a line that a crash cut short must not swallow the next one
        self._pending.append(b"\n")

    def _rewrite(self) -> None:
        """Begin a new file with all that counts. Raises OSError, and then the old one stands."""
        names = {name: number for number, name in enumerate(self.rules.accounts)}
        data = "".join(self.lines(names)).encode("utf-8", "surrogateescape")
        fd = write_anew(self._path, data)
        if self._fd >= 0:
            os.close(self._fd)
        self._names = names
        self._pending.clear()
        self._fd, self._size, self._size_then, self._is_unsynced = fd, len(data), len(data), False
