"""The ledger's file when it is written anew: a line a fact, a letter first. How lines are read back stands in `ledger`.

    H ID, B MOMENT        the highest job ever seen; from when on every start is known
    A NUMBER SINCE NAME   an account, which the lines after it name by its number
    d, y NUMBER FIRST LAST    tasks that are over; that their owner cancelled (X: all of the account)
    s, n, o, f, g, c, e   an attempt was started, never started, ended well, failed; grants, counts, how it ended
    J ID RETRIES,FLAGS KEY    what a job's signature says
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hq.core.ledger import Ledger, Starts, Terms, slot_of
from hq.model.ids import PLAIN
from hq.userserver.ends import Ends


def job_line(job: int, terms: Terms) -> str:
    """What a job's signature says about starts."""
    return f"J {job} {terms.retries},{'r' if terms.is_rerunnable else ''}{'a' if terms.is_array else ''} {terms.key}\n"


def ledger_lines(rules: Ledger, names: Mapping[str, int], jobs: Iterable[tuple[int, Terms]], ends: Ends, highest: int, since: float) -> Iterator[str]:
    """Everything that counts. `names`: the number of each account."""
    if highest:
        yield f"H {highest} 0\n"
    if since:
        yield f"B {since!r} 0\n"
    for name, account in rules.accounts.items():
        number = names[name]
        yield f"A {number} {account.since:.0f} {name}\n"
        for first, last in account.spent.ranges():
            yield f"d {number} {first} {last}\n"
        for first, last in account.cancelled.ranges():
            yield f"y {number} {first} {last}\n"
        if account.is_cancelled:
            yield f"X {number} 0 0\n"
        for task, starts in account.open.items():
            for attempt in sorted(starts.attempts):
                yield f"s {number} {task} {attempt}\n"
            if starts != Starts(starts.attempts):
                yield f"c {number} {task} {starts.failures} {starts.grants} {starts.failed}\n"
    for slot, end in ends.items():
        if slot.account in names:
            yield f"e {names[slot.account]} {slot.number} {end.attempt} {end.words}\n"
    for job, terms in jobs:
        found = rules.accounts.get(slot_of(terms, 0 if terms.is_array else PLAIN).account)
        # one that never started may be cancelled yet, or started by a database that was restored
        if found is None or found.open:
            yield job_line(job, terms)
