"""What a ledger's file says, line by line: a letter first, then what it is about.

    H ID, B MOMENT        the highest job ever seen; from when on every start is known
    O INCARNATION NUMBER  up to which of hq-server's numbers all cancellations by others are noted
    A NUMBER SINCE NAME   an account, which the lines after it name by its number
    d, w, F, y NUMBER FIRST LAST    tasks that are over; of these, ended well, failed; tasks that were cancelled (X: all of the account)
    s, n, o, f, g, x, c, e   an attempt was started, never started, ended well, failed; a grant, a cancellation; counts, how it ended
    J ID RETRIES,FLAGS KEY    what a job's signature says
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hq.core.ledger import Ledger, Slot, Starts, Terms, slot_of
from hq.model.ids import PLAIN
from hq.model.states import Outcome
from hq.userserver.ends import End, Ends, parse_end

OUTCOMES = {"o": Outcome.OK, "f": Outcome.FAILED}


def job_line(job: int, terms: Terms) -> str:
    """What a job's signature says about starts."""
    return f"J {job} {terms.retries},{'r' if terms.is_rerunnable else ''}{'a' if terms.is_array else ''} {terms.key}\n"


class LedgerFacts:
    """What the lines come to, whose order counts. Lines of another machine's ledger may follow: then both together are true."""

    def __init__(self) -> None:
        self.rules = Ledger()
        self.highest = 0  # the highest job that was ever seen
        self.since = 0.0  # from when on every start is known, by hq-server's clock; 0: not known
        self.told = (0, 0)  # cancellations by others: hq-server's incarnation, and the highest of its numbers that is noted here
        self._jobs: dict[int, tuple[bytes, Terms]] = {}  # signature (empty: it was read from the file) and terms
        self._ends = Ends()

    def take_in(self, lines: Iterable[str]) -> int:
        """Take in the lines of a file. Returns how many could not be read."""
        names: dict[str, tuple[str, float]] = {}
        bad = 0
        for line in lines:
            if line:
                try:
                    self._read_line(line, names)
                except (ValueError, KeyError, IndexError):
                    bad += 1
        return bad

    def lines(self, names: Mapping[str, int]) -> Iterator[str]:
        """Everything that counts, for a file that is written anew. `names`: the number of each account."""
        if self.highest:
            yield f"H {self.highest} 0\n"
        if self.since:
            yield f"B {self.since!r} 0\n"
        if self.told != (0, 0):
            yield told_line(self.told)
        for name, account in self.rules.accounts.items():
            number = names[name]
            yield f"A {number} {account.since:.0f} {name}\n"
            for first, last in account.spent.ranges():
                yield f"d {number} {first} {last}\n"
            for letter, numbers in (("w", account.well), ("F", account.failed), ("y", account.cancelled)):
                for first, last in numbers.ranges():
                    yield f"{letter} {number} {first} {last}\n"
            if account.is_cancelled:
                yield f"X {number} 0 0\n"
            for task, starts in account.open.items():
                for attempt in sorted(starts.attempts):
                    yield f"s {number} {task} {attempt}\n"
                if starts != Starts(starts.attempts):
                    yield f"c {number} {task} {starts.failures} {starts.grants} {starts.failed}\n"
        for slot, end in self._ends.items():
            if slot.account in names:
                yield f"e {names[slot.account]} {slot.number} {end.attempt} {end.words}\n"
        for job, (_, terms) in self._jobs.items():
            found = self.rules.accounts.get(slot_of(terms, 0 if terms.is_array else PLAIN).account)
            # one that never started may be cancelled yet, or started by a database that was restored
            if found is None or found.open:
                yield job_line(job, terms)

    def _read_line(self, line: str, names: dict[str, tuple[str, float]]) -> None:
        letter, number, *rest = line.split(" ", 3)
        if letter == "A":
            names[number] = (rest[1], float(rest[0]))
            return
        if letter == "J":
            retries, flags = rest[0].split(",")
            self._jobs[int(number)] = (b"", Terms(rest[1], int(retries), "r" in flags, "a" in flags))
        if letter in "JH":
            self.highest = max(self.highest, int(number))
            return
        if letter == "B":
            # another machine's ledger may have been added: both together reach as far as the older one
            self.since = min(self.since or float(number), float(number))
            return
        if letter == "O":
            self.told = max(self.told, (int(number), int(rest[0])))
            return
        self._read_fact(letter, *names[number], " ".join(rest).split())

    def _read_fact(self, letter: str, name: str, since: float, words: list[str]) -> None:
        slot = Slot(name, int(words[0]))
        if letter in ("e", "o"):
            self._ends.note(slot, parse_end(*words[1:4]) if letter == "e" else End(int(words[1]), Outcome.OK, 0))
        if letter == "s":
            self.rules.started(slot, int(words[1]), since)
        elif letter == "n":
            self.rules.never_started(slot, int(words[1]))
        elif letter in OUTCOMES:
            self.rules.ended(slot, int(words[1]), OUTCOMES[letter], int(words[2]) if len(words) > 2 else 0)
        elif letter == "g":
            self.rules.grant(slot)
        elif letter in "xXy":
            last = int(words[1]) if letter == "y" else slot.number
            for cancelled in range(slot.number, last + 1):
                self.rules.cancel(Slot(name, cancelled), since, is_all=letter == "X")
        elif letter == "c":  # failures and grants, in a file that was written anew
            self.rules.accounts[name].open[slot.number].failures = int(words[1])
            self.rules.accounts[name].open[slot.number].grants = int(words[2])
            self.rules.accounts[name].open[slot.number].failed = int(words[3]) if len(words) > 3 else 0
        elif letter in "wF":
            numbers = self.rules.accounts[name].well if letter == "w" else self.rules.accounts[name].failed
            for number in range(slot.number, int(words[1]) + 1):
                numbers.add(number)
        elif letter == "d":
            self.rules.started(slot, 1, since)
            for spent in range(slot.number, int(words[1]) + 1):
                self.rules.spend(Slot(name, spent))


def told_line(told: tuple[int, int]) -> str:
    """Up to where cancellations by others are noted."""
    return f"O {told[0]} {told[1]}\n"
