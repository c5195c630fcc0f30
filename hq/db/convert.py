"""Records to rows and back. Rows are dicts by column; nothing here talks to a database.

What a record must get back unchanged stands in full (body, signature, wishes); columns for reading only are cut to their length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from hq.errors import DatabaseError
from hq.model.changes import AuditRecord
from hq.model.host import HostRecord, HostSpec, LoadSample
from hq.model.job import MAX_TEXT, JobRecord, JobSpec, SignedSpec, TaskRecord, Wishes
from hq.model.states import Outcome, TaskState
from hq.model.text import printable
from hq.model.user import KeyRecord, Role, UserRecord

Row = dict[str, Any]

#: Characters of a command that are kept for reading and finding.
MAX_COMMAND_TEXT = 8000
#: Characters of a reason or detail that are kept.
MAX_REASON = 16_000

_INT64 = (1 << 63) - 1
_INT32 = (1 << 31) - 1

_SPEC = msgspec.msgpack.Decoder(JobSpec, strict=True)
_WISHES = msgspec.json.Decoder(Wishes)
_RESOURCES = msgspec.json.Decoder(dict[str, int])
_TO_JSON = msgspec.json.Encoder()


def cut(text: str, limit: int) -> str:
    """`text`, at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _whole(value: int | None, limit: int = _INT64) -> int | None:
    """A number from a peer, moved into the column's range: one absurd value must not stop a whole batch."""
    return value if value is None else max(-limit, min(limit, value))


def _real(value: float | None) -> float | None:
    """A number that every database takes: neither NaN nor infinite."""
    return value if value is None or -1e300 < value < 1e300 else None


def command_text(spec: JobSpec) -> str:
    """The command as one printable line, cut: for reading and finding, never for running."""
    words = " ".join(printable(word[:MAX_COMMAND_TEXT]) for word in spec.argv[:MAX_COMMAND_TEXT])
    return cut(f"(script) {words}".rstrip() if spec.script else words, MAX_COMMAND_TEXT)


def task_count(record: JobRecord) -> int:
    """How many tasks the job has."""
    indices = record.index_set()
    return 1 if indices is None else len(indices)


def user_row(record: UserRecord) -> Row:
    """For the table `user`."""
    return {"name": record.name, "roles": ",".join(sorted(record.roles)), "is_enabled": record.is_enabled}


def user_record(row: Any) -> UserRecord:
    """From the table `user`."""
    return UserRecord(name=row.name, roles=frozenset(filter(None, row.roles.split(","))), is_enabled=bool(row.is_enabled))


def key_row(record: KeyRecord) -> Row:
    """For the table `user_key`."""
    return {
        "public": record.public, "user": record.user, "role": record.role.value, "host": record.host, "sign_public": record.sign_public,
        "is_enabled": record.is_enabled, "created": record.created, "proof": cut(record.proof, 255),
    }  # fmt: skip


def key_record(row: Any) -> KeyRecord:
    """From the table `user_key`."""
    return KeyRecord(
        public=row.public, user=row.user, role=Role(row.role), host=row.host, sign_public=row.sign_public, is_enabled=bool(row.is_enabled),
        created=row.created, proof=row.proof,
    )  # fmt: skip


def host_row(record: HostRecord) -> Row:
    """For the table `host`."""
    spec = record.spec
    return {
        "name": spec.name, "address": spec.address, "total": spec.total, "slots": spec.slots, "info": spec.info, "transport": spec.transport,
        "backend": spec.backend, "queue": spec.queue, "resources": _TO_JSON.encode(spec.resources).decode(), "memory": spec.memory,
        "is_active_at_first": spec.is_active, "is_active": record.is_active, "drain_reason": record.drain_reason, "is_listed": record.is_listed,
    }  # fmt: skip


def host_record(row: Any) -> HostRecord:
    """From the table `host`."""
    spec = HostSpec(
        name=row.name, address=row.address, total=row.total, slots=row.slots, info=row.info, is_active=bool(row.is_active_at_first),
        transport=row.transport, backend=row.backend, queue=row.queue, resources=_RESOURCES.decode(row.resources), memory=row.memory,
    )  # fmt: skip
    return HostRecord(spec=spec, is_active=bool(row.is_active), drain_reason=row.drain_reason, is_listed=bool(row.is_listed))


def job_row(record: JobRecord) -> Row:
    """For the tables `job` and, with the result, `job_history`."""
    spec, wishes = record.spec, record.wishes
    return {
        "id": record.id, "user": record.user, "submission": spec.key, "name": cut(spec.name, MAX_TEXT), "group_name": cut(wishes.group, MAX_TEXT),
        "info": cut(wishes.info, MAX_TEXT), "command": command_text(spec), "slots": spec.slots, "priority": wishes.priority,
        "queue": cut(wishes.queue, 255), "is_held": wishes.is_held, "is_array": record.is_array, "indices": spec.indices, "task_count": task_count(record),
        "submitted": record.submitted, "body": record.signed.body, "signature": record.signed.signature,
        "wishes": _TO_JSON.encode(wishes).decode(), "cancelled_rest": record.cancelled_rest, "ended": record.ended,
    }  # fmt: skip


def wishes_of(row: Any) -> Wishes:
    """From the tables `job` and `job_history`. Raises DatabaseError for wishes that this version cannot read."""
    try:
        return _WISHES.decode(row.wishes)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _unreadable(row, error) from None


def _unreadable(row: Any, error: Exception) -> DatabaseError:
    return DatabaseError(f"job {row.id} in the state database cannot be read: {error}; was it written by a newer hq?")


def job_record(row: Any) -> JobRecord:
    """From the tables `job` and `job_history`. Raises DatabaseError for a body that this version cannot read."""
    wishes = wishes_of(row)
    try:
        spec = _SPEC.decode(row.body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _unreadable(row, error) from None
    return JobRecord(
        id=row.id, user=row.user, spec=spec, signed=SignedSpec(bytes(row.body), bytes(row.signature)), wishes=wishes, submitted=row.submitted,
        ended=row.ended, cancelled_rest=row.cancelled_rest,
    )  # fmt: skip


def task_row(record: TaskRecord) -> Row:
    """For the table `task`."""
    return ended_task_row(record) | {
        "state": record.state.value, "ended": record.ended, "native_state": cut(record.native_state, 64) or None,
        "native_reason": cut(record.native_reason, MAX_REASON) or None, "is_held": record.is_held or None,
    }  # fmt: skip


def ended_task_row(record: TaskRecord) -> Row:
    """For the table `task_history`."""
    outcome = record.outcome
    return {
        "job": record.job, "idx": record.index, "attempt": record.attempt, "user": record.user, "slots": record.slots, "host": record.host,
        "since": record.since, "started": record.started, "pid": _whole(record.pid),
        "ended": record.since if record.ended is None else record.ended, "outcome": None if outcome is None else outcome.value,
        "exit_code": _whole(record.exit_code, _INT32), "signal_number": _whole(record.signal, 32767), "max_rss": _whole(record.max_rss),
        "cpu_seconds": _real(record.cpu), "reason": cut(record.reason, MAX_REASON), "native_id": cut(record.native_id, 128) or None,
        "native_since": record.native_since,
    }  # fmt: skip


def task_record(row: Any, *, is_ended: bool = False) -> TaskRecord:
    """From the tables `task` and `task_history`."""
    return TaskRecord(
        job=row.job, index=row.idx, attempt=row.attempt, state=TaskState.FINISHED if is_ended else TaskState(row.state), user=row.user,
        slots=row.slots, host=row.host, since=row.since, started=row.started, ended=row.ended, pid=row.pid,
        outcome=None if row.outcome is None else Outcome(row.outcome), exit_code=row.exit_code, signal=row.signal_number, max_rss=row.max_rss,
        cpu=row.cpu_seconds, reason=row.reason, native_id=row.native_id or "", native_since=row.native_since,
        native_state="" if is_ended else row.native_state or "", native_reason="" if is_ended else row.native_reason or "",
        is_held=not is_ended and bool(row.is_held),
    )  # fmt: skip


def event_rows(events: Iterable[tuple[float, int, int, int, str, str, str]]) -> list[Row]:
    """For the table `task_event`."""
    return [
        {"at": at, "job": job, "idx": index, "attempt": attempt, "state": state, "host": host, "reason": cut(reason, MAX_REASON)}
        for at, job, index, attempt, state, host, reason in events
    ]


def load_row(sample: LoadSample) -> Row:
    """For the table `host_load`."""
    return {
        "host": sample.host, "user": sample.user, "at": sample.at, "load1": _real(sample.load1) or 0.0, "load5": _real(sample.load5) or 0.0,
        "load15": _real(sample.load15) or 0.0, "cores": _whole(sample.cores, _INT32), "memory_total": _whole(sample.memory_total),
        "memory_free": _whole(sample.memory_free),
    }  # fmt: skip


def audit_row(record: AuditRecord) -> Row:
    """For the table `audit`."""
    return {
        "at": record.at, "actor": record.actor, "role": record.role, "action": cut(record.action, 64), "owner": record.owner,
        "target": cut(record.target, MAX_REASON), "detail": cut(record.detail, MAX_REASON),
    }  # fmt: skip
