"""What a user's signatures still permit: how often each task was started, so that no start beyond what was signed is relayed.

A signature permits one start a task and the retries that it names; a rerunnable task may start again until it has ended by itself.
Nothing else counts: not what hq-server says, nor what its database says after a restore. The owner himself may grant one start more
(requeue, resolve). Pure; `hq.userserver.ledger` keeps it on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hq.model.ids import PLAIN
from hq.model.states import Outcome

_CHUNK = 12  # bits of an index within one integer of a set
#: Ends that a task came to by itself, and that its retries are for.
FAILURES = frozenset({Outcome.FAILED, Outcome.TIMEOUT, Outcome.MEMORY})


class Terms(NamedTuple):
    """What a job's signature says about starts."""

    key: str
    retries: int
    is_rerunnable: bool
    is_array: bool


class Slot(NamedTuple):
    """Where a task stands in the ledger: lines of one submission share an account, and so do the tasks of one array."""

    account: str
    number: int


def slot_of(terms: Terms, index: int) -> Slot:
    """The place of a task. Keys of one submission are `KEY-0`, `KEY-1`, …: so a file of many jobs is one account."""
    if terms.is_array or index != PLAIN:
        return Slot(f"a:{terms.key}", index)
    base, dash, number = terms.key.rpartition("-")
    if dash and number.isascii() and number.isdigit() and len(number) <= 9 and str(int(number)) == number:
        return Slot(f"p:{base}", int(number))
    return Slot(f"k:{terms.key}", 0)


class Numbers:
    """A set of numbers from 0 that costs a bit each where they lie close together."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}

    def __contains__(self, number: int) -> bool:
        return bool(self._chunks.get(number >> _CHUNK, 0) >> (number & ((1 << _CHUNK) - 1)) & 1)

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, number: int) -> None:
        """Take a number in."""
        chunk = number >> _CHUNK
        self._chunks[chunk] = self._chunks.get(chunk, 0) | 1 << (number & ((1 << _CHUNK) - 1))

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First and last of each run of neighbours, rising."""
        first = last = -2
        for chunk in sorted(self._chunks):
            bits, base = self._chunks[chunk], chunk << _CHUNK
            while bits:
                low = (bits & -bits).bit_length() - 1
                number = base + low
                bits ^= 1 << low
                if number != last + 1:
                    if last >= 0:
                        yield first, last
                    first = number
                last = number
        if last >= 0:
            yield first, last


@dataclass(slots=True)
class Starts:
    """A task that was started and has not come to its last end. `attempts`: those that count."""

    attempts: set[int] = field(default_factory=set)
    failures: int = 0
    grants: int = 0
    failed: int = 0  # the last attempt whose failure is counted: reports are repeated until hq-server has recorded them


@dataclass(slots=True)
class Account:
    """The tasks of one submission."""

    since: float  # Unix time of its first start
    spent: Numbers = field(default_factory=Numbers)  # nothing of these may ever start again
    well: Numbers = field(default_factory=Numbers)  # of `spent`: these ended well, those failed; of others that is not known
    failed: Numbers = field(default_factory=Numbers)
    cancelled: Numbers = field(default_factory=Numbers)  # nor of these, which were cancelled
    is_cancelled: bool = False  # all of them are
    open: dict[int, Starts] = field(default_factory=dict)


class Ledger:
    """All accounts."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def refusal(self, terms: Terms, index: int, attempt: int) -> str | None:
        """Why this attempt must not be relayed; None: it may. One that was admitted before may be relayed again."""
        account, number = slot_of(terms, index)
        known = self.accounts.get(account)
        if known is None:
            return None
        if known.is_cancelled or number in known.cancelled:
            return "it was cancelled"
        if number in known.spent:
            return "it has ended before, and was not signed for a further start"
        starts = known.open.get(number)
        if starts is None or attempt in starts.attempts:
            return None
        if starts.attempts and attempt < max(starts.attempts):
            return f"attempt {max(starts.attempts)} of it was started already"
        if terms.is_rerunnable or len(starts.attempts) < 1 + terms.retries + starts.grants:
            return None
        times = f"{len(starts.attempts)} time{'s' if len(starts.attempts) > 1 else ''}"
        return f"it was started {times} already, and is signed for {1 + terms.retries} (it is not rerunnable)"

    def started(self, slot: Slot, attempt: int, at: float) -> None:
        """An attempt is about to be relayed."""
        account = self.accounts.get(slot.account)
        if account is None:
            account = self.accounts[slot.account] = Account(at)
        account.open.setdefault(slot.number, Starts()).attempts.add(attempt)

    def is_noted(self, slot: Slot, attempt: int) -> bool:
        """Whether the attempt was noted as started."""
        starts = self._open(slot)
        return starts is not None and attempt in starts.attempts

    def never_started(self, slot: Slot, attempt: int) -> bool:
        """The attempt came to no process: it does not count. Returns whether that changed anything."""
        starts = self._open(slot)
        if starts is None or attempt not in starts.attempts:
            return False
        starts.attempts.discard(attempt)
        if not starts.attempts and not starts.failures and not starts.grants:
            del self.accounts[slot.account].open[slot.number]
        return True

    def ended(self, slot: Slot, attempt: int, outcome: Outcome, retries: int) -> bool:
        """The attempt ended by itself. Returns whether that changed anything."""
        starts = self._open(slot)
        if starts is None or not starts.attempts or attempt != max(starts.attempts):
            return False
        if outcome in FAILURES:
            if attempt <= starts.failed:
                return False
            starts.failed = attempt
            starts.failures += 1
        elif outcome is not Outcome.OK:
            return False
        if outcome is Outcome.OK or starts.failures > retries + starts.grants:
            self.spend(slot)
            account = self.accounts[slot.account]
            (account.well if outcome is Outcome.OK else account.failed).add(slot.number)
        return True

    def how(self, slot: Slot) -> Outcome | None:
        """Whether a task that is over ended well or failed; None: it is not over, or that is not known."""
        account = self.accounts.get(slot.account)
        if account is None:
            return None
        return Outcome.OK if slot.number in account.well else Outcome.FAILED if slot.number in account.failed else None

    def spend(self, slot: Slot) -> None:
        """Nothing of this task may start again."""
        account = self.accounts[slot.account]
        account.open.pop(slot.number, None)
        account.spent.add(slot.number)

    def cancel(self, slot: Slot, at: float, *, is_all: bool = False) -> None:
        """This task was cancelled (`is_all`: and every other of its account), whether it has started or not."""
        account = self.accounts.get(slot.account)
        if account is None:
            account = self.accounts[slot.account] = Account(at)
        account.is_cancelled = account.is_cancelled or is_all
        if not is_all:
            account.cancelled.add(slot.number)

    def grant(self, slot: Slot) -> None:
        """Its owner lets it start once more than was signed."""
        starts = self._open(slot)
        if starts is not None:
            starts.grants += 1

    def forget_before(self, moment: float) -> None:
        """Drop accounts that are older (Unix time) and have nothing open."""
        for name in [name for name, account in self.accounts.items() if account.since < moment and not account.open]:
            del self.accounts[name]

    def _open(self, slot: Slot) -> Starts | None:
        account = self.accounts.get(slot.account)
        return None if account is None else account.open.get(slot.number)
