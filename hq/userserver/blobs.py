"""Sealed environments and scripts that pass by, the lately used ones kept, so that many exec-servers cost one question upward."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hq.protocol.base import Message
from hq.protocol.runs import BlobGet, BlobPut

CACHE_BYTES = 64 << 20


class BlobCache:
    """Sealed bytes by digest; the least lately used go first."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._blobs: OrderedDict[str, bytes] = OrderedDict()

    def put(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Keep some. One larger than the whole cache is not kept."""
        for digest, sealed in blobs:
            if digest in self._blobs or len(sealed) > self._limit:
                continue
            self._blobs[digest] = sealed
            self._size += len(sealed)
            while self._size > self._limit:
                _, oldest = self._blobs.popitem(last=False)
                self._size -= len(oldest)

    def get(self, digest: str) -> bytes | None:
        """The bytes, if they are here."""
        sealed = self._blobs.get(digest)
        if sealed is not None:
            self._blobs.move_to_end(digest)
        return sealed


@dataclass(slots=True)
class _Waiting:
    host: str
    request: int
    open: set[str]
    found: dict[str, bytes]
    lost: list[str] = field(default_factory=list)


class BlobWaiters:
    """Which requests of exec-servers wait for which digests; each digest is asked for once."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def add(self, host: str, request: int, found: dict[str, bytes], wanted: Iterable[str]) -> list[str]:
        """A request of `host` for digests, of which `found` are here. Returns those that nobody has asked for yet."""
        asked = set().union(*(each.open for each in self._waiting))
        missing = dict.fromkeys(wanted)
        self._waiting.append(_Waiting(host, request, set(missing), dict(found)))
        return [digest for digest in missing if digest not in asked]

    def came(self, blobs: dict[str, bytes], missing: Iterable[str]) -> list[tuple[str, int, dict[str, bytes], tuple[str, ...]]]:
        """Some came, or are nowhere. Returns the requests that are complete now: host, request, blobs, missing."""
        absent = set(missing)
        for each in self._waiting:
            for digest in each.open & blobs.keys():
                each.found[digest] = blobs[digest]
            each.lost += sorted(each.open & absent)
            each.open -= blobs.keys() | absent
        complete = [each for each in self._waiting if not each.open]
        self._waiting = [each for each in self._waiting if each.open]
        return [(each.host, each.request, each.found, tuple(each.lost)) for each in complete]

    def drop(self, digests: Iterable[str]) -> None:
        """Nobody could be asked for these: who waits for them has to ask again."""
        wanted = set(digests)
        self._waiting = [each for each in self._waiting if not each.open & wanted]

    def forget(self, host: str) -> None:
        """The exec-server on `host` is gone or came anew: it will ask again."""
        self._waiting = [each for each in self._waiting if each.host != host]


class BlobRelay:
    """Answers exec-servers from the cache, else asks upward: `ask(message, on_answer)`; answers leave by `answer(host, request, message)`."""

    def __init__(
        self, ask: Callable[[BlobGet, Callable[[Message, bool], None]], object], answer: Callable[[str, int, Message], None]
    ) -> None:
        self.cache = BlobCache()
        self._waiters = BlobWaiters()
        self._ask = ask
        self._answer = answer

    def get(self, host: str, request: int, message: BlobGet) -> None:
        """An exec-server wants some."""
        found = {digest: sealed for digest in message.digests if (sealed := self.cache.get(digest)) is not None}
        wanted = [digest for digest in message.digests if digest not in found]
        if not wanted:
            self._answer(host, request, BlobPut(blobs=found))
            return
        fresh = tuple(self._waiters.add(host, request, found, wanted))
        if fresh:
            self._ask(BlobGet(digests=fresh), lambda answer, is_last: self._came(fresh, answer))

    def forget(self, host: str) -> None:
        """The exec-server on `host` is gone or came anew."""
        self._waiters.forget(host)

    def _came(self, asked: tuple[str, ...], answer: Message) -> None:
        if not isinstance(answer, BlobPut):
            # nobody could be asked; exec-servers ask again by themselves
            self._waiters.drop(asked)
            return
        self.cache.put(answer.blobs.items())
        missing = tuple(digest for digest in asked if digest not in answer.blobs)
        for host, request, blobs, lost in self._waiters.came(answer.blobs, missing):
            self._answer(host, request, BlobPut(blobs=blobs, missing=lost))
