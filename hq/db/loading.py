"""Reading live jobs, many at once: only the columns that make a record, and no body twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, select

from hq.db import convert, tables
from hq.model.job import JobRecord, Wishes

_CHUNK = 1000


def live_jobs(connection: Connection, known: Mapping[int, JobRecord]) -> list[JobRecord]:
    """All live jobs, in order. Of those in `known`, records that were read earlier, only what may have changed since is read."""
    c = tables.job.c
    whole = (c.id, c.user, c.body, c.signature, c.wishes, c.submitted, c.cancelled_rest, c.ended)
    if not known:
        return [convert.job_record(row) for row in connection.execute(select(*whole).order_by(c.id))]
    found: dict[int, JobRecord] = {}
    wishes: dict[str, Wishes] = {}
    new: list[int] = []
    for row in connection.execute(select(c.id, c.wishes, c.cancelled_rest, c.ended)):
        record = known.get(row.id)
        if record is None:
            new.append(row.id)
            continue
        wished = wishes.get(row.wishes)
        if wished is None:
            wished = wishes[row.wishes] = convert.wishes_of(row)
        if (record.wishes, record.cancelled_rest, record.ended) != (wished, row.cancelled_rest, row.ended):
            record = replace(record, wishes=wished, cancelled_rest=row.cancelled_rest, ended=row.ended)
        found[row.id] = record
    for start in range(0, len(new), _CHUNK):
        for each in connection.execute(select(*whole).where(c.id.in_(new[start : start + _CHUNK]))):
            found[each.id] = convert.job_record(each)
    return [found[id] for id in sorted(found)]
