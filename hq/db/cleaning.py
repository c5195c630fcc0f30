"""Rows that nobody needs any more go: blobs of no live job, and history that is older than its owner wants it.

A part at a time, for it is done in the transaction of a commit: what is left over goes the next time.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from hq.db import tables
from hq.model.changes import Cleaning

#: Rows that go at once, about.
BLOBS = 5_000
ROWS = 50_000
_CHUNK = 500


def clean(connection: Connection, cleaning: Cleaning) -> None:
    """Remove what `cleaning` leaves over."""
    _clean_blobs(connection, cleaning.blobs_needed)
    if cleaning.before is not None:
        _clean_history(connection, cleaning.before)


def _clean_blobs(connection: Connection, needed: frozenset[tuple[str, str]]) -> None:
    c = tables.blob.c
    found: dict[str, list[str]] = {}
    spare = BLOBS
    for digest, user in connection.execute(select(c.digest, c.user)):
        if (digest, user) not in needed and spare > 0:
            found.setdefault(user, []).append(digest)
            spare -= 1
    for user, digests in found.items():
        for start in range(0, len(digests), _CHUNK):
            connection.execute(delete(tables.blob).where(c.user == user, c.digest.in_(digests[start : start + _CHUNK])))


def _clean_history(connection: Connection, before: float) -> None:
    job, task = tables.job_history.c, tables.task_history.c
    spare, whole = ROWS, list[int]()
    for id, count in connection.execute(select(job.id, job.task_count).where(job.ended < before).order_by(job.ended).limit(ROWS)).all():
        if count > spare:
            if not whole:
                # a job larger than what goes at once: its tasks a part at a time, itself with the last of them
                last = connection.execute(select(task.idx).where(task.job == id).order_by(task.idx).limit(1).offset(ROWS)).scalar()
                if last is None:
                    whole.append(id)
                else:
                    connection.execute(delete(tables.task_history).where(task.job == id, task.idx < last))
            break
        whole.append(id)
        spare -= max(1, count)
    for start in range(0, len(whole), _CHUNK):
        some = whole[start : start + _CHUNK]
        connection.execute(delete(tables.task_history).where(task.job.in_(some)))
        connection.execute(delete(tables.task_event).where(tables.task_event.c.job.in_(some)))
        connection.execute(delete(tables.job_history).where(job.id.in_(some)))
