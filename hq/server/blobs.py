"""Sealed blobs for their owner only: the digest alone opens nothing, but it is nobody else's business what is stored."""

from __future__ import annotations

from sqlalchemy import select

from hq.db import tables
from hq.db.engine import reached
from hq.db.store import Store


def own_blobs(store: Store, digests: tuple[str, ...], user: str) -> dict[str, bytes]:
    """The sealed bytes of those digests that belong to `user`. Raises DatabaseError."""
    c = tables.blob.c
    with reached(store.engine), store.engine.connect() as connection:
        own = set(connection.execute(select(c.digest).where(c.digest.in_(digests), c.user == user)).scalars())
    return store.blobs(digest for digest in digests if digest in own)
