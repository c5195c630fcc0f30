"""Tells hq-server, after its database was restored, what ledger and run book know: in pieces, each when the last one was taken in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hq.core.ledger import Account, Numbers, Terms, slot_of
from hq.kernel.clock import Now
from hq.model.ids import PLAIN
from hq.model.restored import JobWord, Ranges
from hq.protocol.base import Message
from hq.protocol.ledgers import LedgerNoted, LedgerStatement, LedgerWanted
from hq.protocol.specs import decode_spec
from hq.userserver.book import JobEntry, read_book

if TYPE_CHECKING:
    from hq.userserver.server import UserServer

#: A piece holds at most so many tasks and jobs, and so many bytes.
MAX_TASKS = 5000
MAX_JOBS = 2000
MAX_BYTES = 8 << 20


def tell(server: UserServer, wanted: LedgerWanted) -> None:
    """Read the book beside the loop, then send the first piece.

    Both speak of this moment. A run that ends while the book is read has its end in neither: it is told as running, and its end is
    reported again until it is recorded. Were the ledger asked later, it would call that run over and the book could not say how it ended.
    """
    ledger = server.execs.ledger
    ledger.book.tick()
    paths = ledger.book.paths()
    known = {id: _known(terms, ledger.rules.accounts) for id, terms in ledger.known_jobs() if _is_wanted(wanted, id)}
    log = server.log("link")
    log.info("hq-server's database was restored: it is told what the ledger knows")

    def read(value: Any, error: BaseException | None, now: Now) -> None:
        if error is not None:
            log.warning("the run book cannot be read, hq-server is told what the ledger alone knows: %s", error)
        entries, blobs = value if error is None else ({}, {})
        words = []
        for id in sorted(entries.keys() | known.keys()):
            entry = entries.get(id, JobEntry())
            words.append(_word(id, entry, known.get(id) or _unsent(entry, ledger.rules.accounts)))
        _send_next(server, _pieces(words, blobs))

    server.background.run(read, lambda: read_book(paths, wanted.jobs, wanted.above))


def _send_next(server: UserServer, pieces: Iterator[tuple[list[JobWord], dict[str, bytes], bool]]) -> None:
    piece = next(pieces, None)
    if piece is None:
        return
    words, blobs, is_last = piece

    def answered(answer: Message, is_final: bool) -> None:
        if isinstance(answer, LedgerNoted):
            server.log("link").info("the ledger was compared with hq-server's restored database: %s", answer.text)
            _send_next(server, pieces)
        else:
            # it is asked for again when hq-server lets us in the next time
            server.log("link").warning("hq-server has not taken what the ledger says: %s", getattr(answer, "text", answer))

    statement = LedgerStatement(jobs=tuple(words), blobs=blobs, since=server.execs.ledger.since, sent=server.now.wall, is_last=is_last)
    server.upstream.ask(statement, answered, is_repeatable=False)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ledger says of a job."""

    key: str
    spent: Ranges = ()
    cancelled: Ranges = ()
    is_cancelled: bool = False
    well: Ranges = ()
    failed: Ranges = ()


def _is_wanted(wanted: LedgerWanted, id: int) -> bool:
    return id > wanted.above or any(first <= id <= last for first, last in wanted.jobs)


def _known(terms: Terms, accounts: dict[str, Account]) -> _Known:
    slot = slot_of(terms, 0 if terms.is_array else PLAIN)
    account = accounts.get(slot.account)
    if account is None:
        return _Known(terms.key)

    def ranges(numbers: Numbers) -> Ranges:
        return tuple(numbers.ranges()) if terms.is_array else ((PLAIN, PLAIN),) if slot.number in numbers else ()

    return _Known(terms.key, ranges(account.spent), ranges(account.cancelled), account.is_cancelled, ranges(account.well), ranges(account.failed))


def _unsent(entry: JobEntry, accounts: dict[str, Account]) -> _Known:
    """Of a job of which nothing was sent to a host the ledger knows at most that it was cancelled."""
    if entry.signed is None:
        return _Known("")
    spec = decode_spec(entry.signed.body)
    return _known(Terms(spec.key, spec.retries, spec.is_rerunnable, bool(spec.indices)), accounts)


def _word(id: int, entry: JobEntry, known: _Known) -> JobWord:
    """Book and ledger together."""
    return JobWord(id=id, key=known.key, signed=entry.signed, wishes=entry.wishes, submitted=entry.submitted, tasks=tuple(entry.tasks.values()),
                   spent=known.spent, cancelled=known.cancelled, is_cancelled=known.is_cancelled, well=known.well, failed=known.failed)  # fmt: skip


def _pieces(words: list[JobWord], blobs: dict[str, bytes]) -> Iterator[tuple[list[JobWord], dict[str, bytes], bool]]:
    """Jobs with the contents that they name; one with many tasks in several pieces, of which the last says what is over."""
    piece: list[JobWord] = []
    named: dict[str, bytes] = {}
    told: set[str] = set()
    tasks = size = 0
    for word in words:
        for part in _parts(word):
            digests = _digests(part) - told
            weight = (len(part.signed.body) + 300 if part.signed is not None else 300) + sum(len(blobs.get(digest, b"")) for digest in digests)
            if piece and (tasks + len(part.tasks) > MAX_TASKS or len(piece) >= MAX_JOBS or size + weight > MAX_BYTES):
                yield piece, named, False
                piece, named, tasks, size = [], {}, 0, 0
            piece.append(part)
            named.update({digest: blobs[digest] for digest in digests if digest in blobs})
            told |= digests
            tasks, size = tasks + len(part.tasks), size + weight
    yield piece, named, True


def _parts(word: JobWord) -> Iterator[JobWord]:
    for start in range(0, max(1, len(word.tasks)), MAX_TASKS):
        is_end = start + MAX_TASKS >= len(word.tasks)
        yield JobWord(id=word.id, key=word.key, signed=word.signed, wishes=word.wishes, submitted=word.submitted,
                      tasks=word.tasks[start : start + MAX_TASKS], spent=word.spent if is_end else (),
                      cancelled=word.cancelled if is_end else (), is_cancelled=word.is_cancelled and is_end,
                      well=word.well if is_end else (), failed=word.failed if is_end else ())  # fmt: skip


def _digests(word: JobWord) -> set[str]:
    if word.signed is None:
        return set()
    spec = decode_spec(word.signed.body)
    return {digest for digest in (spec.env, spec.script) if digest}
