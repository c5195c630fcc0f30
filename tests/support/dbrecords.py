"""Records for tests of the state database: plain ones with defaults, and hypothesis strategies for arbitrary ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from hq.db.seat import SeatRows
from hq.db.tables import lease, metadata, seat
from hq.model.changes import Changes
from hq.model.host import HostRecord, HostSpec
from hq.model.ids import PLAIN
from hq.model.job import JobRecord, JobSpec, SignedSpec, TaskRecord, Wishes
from hq.model.states import Outcome, OutputAction, TaskState
from hq.model.user import KeyRecord, Role, UserRecord
from hq.protocol.specs import encode_spec

T0 = 1_700_000_000.0


def clean(engine: Engine) -> None:
    """Empty all tables but the ones that say what the database is."""
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            if table.name not in ("view_info", "lease", "seat"):
                connection.execute(delete(table))
        connection.execute(lease.update().values(epoch=0, batch=""))
        connection.execute(seat.update().values(epoch=0, holder="", address="", beat=0, seconds=5.0))


def take_seat(engine: Engine, name: str = "here:/var") -> int:
    """Become the active hq-server, whoever is; the epoch."""
    rows = SeatRows(engine, name)
    epoch = rows.take(rows.look(), "tcp://here:1", 5.0)
    assert epoch is not None
    return epoch


def make_job(id: int, *, user: str = "alice", wishes: Wishes | None = None, submitted: float = T0, ended: float | None = None,
             cancelled_rest: int = 0, **spec: Any) -> JobRecord:  # fmt: skip
    """A job whose body is that of its spec."""
    given: dict[str, Any] = {"instance": "test-0badcafe", "user": user, "key": f"key-{id}", "name": f"job {id}", "argv": (b"true",)}
    made = JobSpec(**(given | spec))
    return JobRecord(
        id=id, user=user, spec=made, signed=SignedSpec(encode_spec(made), b"s" * 64), wishes=wishes or Wishes(), submitted=submitted,
        ended=ended, cancelled_rest=cancelled_rest,
    )  # fmt: skip


def make_task(job: int, index: int = PLAIN, state: TaskState = TaskState.RUNNING, **fields: Any) -> TaskRecord:
    """A task of alice's on node1."""
    given: dict[str, Any] = {"attempt": 1, "user": "alice", "slots": 1, "host": "node1", "since": T0 + 2, "started": T0 + 1}
    return TaskRecord(job=job, index=index, state=state, **(given | fields))


def end_task(task: TaskRecord, outcome: Outcome = Outcome.OK, **fields: Any) -> TaskRecord:
    """The task, ended 10 seconds after T0."""
    given: dict[str, Any] = {"exit_code": 0 if outcome is Outcome.OK else None, "ended": T0 + 10, "since": T0 + 10}
    return replace(task, state=TaskState.FINISHED, outcome=outcome, **(given | fields))


def ended_job(record: JobRecord, *tasks: TaskRecord) -> Changes:
    """Changes that end a job together with these tasks."""
    changes = Changes()
    changes.tasks_ended.extend(tasks)
    changes.jobs_ended[record.id] = replace(record, ended=T0 + 10 if record.ended is None else record.ended)
    return changes


# --- strategies ---

moments = st.integers(0, 4_102_444_800_000_000).map(lambda micro: micro / 1e6)
names = st.from_regex(r"[a-z_][a-z0-9_.-]{0,31}", fullmatch=True)
hosts = st.from_regex(r"[a-z0-9][a-z0-9-]{0,40}", fullmatch=True)
texts = st.text(max_size=80) | st.sampled_from(["", "it's", 'say "hi"\n', "a\\b", "100%", "%s", "null", "\0", "😀 ü", "x; DROP TABLE job; --", " "])
keys = st.text("0123456789abcdefABC.-:+=^!/*?&<>()[]{}@%$#", min_size=40, max_size=40)
counts = st.integers(1, 2**31 - 1)
sizes = st.none() | st.integers(0, 2**62)
blobs = st.binary(max_size=200)

users = st.builds(
    UserRecord, name=names, roles=st.frozensets(st.sampled_from(["user", "admin"]), min_size=1), is_enabled=st.booleans()
)  # fmt: skip
key_records = st.builds(
    KeyRecord, public=keys, user=names, role=st.sampled_from(Role), host=hosts | st.just(""), sign_public=st.just("") | st.just("ab" * 32),
    is_enabled=st.booleans(), created=moments, proof=texts,
)  # fmt: skip
host_records = st.builds(
    HostRecord,
    spec=st.builds(
        HostSpec, name=hosts, address=hosts, total=counts, slots=counts, info=texts, is_active=st.booleans(),
        transport=st.sampled_from(["ssh", "openssh", "local"]), backend=st.just("process"), queue=texts,
        resources=st.dictionaries(texts, counts, max_size=3), memory=sizes,
    ),
    is_active=st.booleans(), drain_reason=st.none() | texts, is_listed=st.booleans(),
)  # fmt: skip
wishes = st.builds(
    Wishes, priority=st.integers(0, 127), group=texts, info=texts, hosts=st.lists(hosts, max_size=3).map(tuple),
    exclude=st.lists(hosts, max_size=3).map(tuple), queue=texts, throttle=st.none() | counts, begin=st.none() | moments,
    is_held=st.booleans(), estimated_time=st.none() | st.floats(0.001, 1e8), estimated_memory=sizes,
)  # fmt: skip
specs = st.builds(
    JobSpec, instance=texts, user=names, key=texts, name=texts, argv=st.lists(blobs, min_size=1, max_size=4).map(tuple), is_shell=st.booleans(),
    shell=blobs, script=st.just("") | st.just("ab" * 16), env=st.just("cd" * 16), cwd=blobs, umask=st.integers(0, 0o777), stdin=blobs,
    stdout=blobs, stderr=blobs, logfile=blobs, indices=st.sampled_from(["", "1-10", "3,7,0-2", "0-1000000:7"]), slots=counts, memory=sizes,
    time_limit=st.none() | st.floats(0.001, 1e8), grace=st.floats(0, 1000), resources=st.dictionaries(texts, counts, max_size=3),
    output_limit=st.integers(0, 2**60), output_action=st.sampled_from(OutputAction), is_rerunnable=st.booleans(), retries=st.integers(0, 1000),
    nice=st.integers(0, 19),
)  # fmt: skip
jobs = st.builds(
    lambda id, spec, signature, asked, submitted, rest: JobRecord(
        id=id, user=spec.user, spec=spec, signed=SignedSpec(encode_spec(spec), signature), wishes=asked, submitted=submitted,
        cancelled_rest=rest,
    ),
    st.integers(1, 2**62), specs, st.binary(min_size=64, max_size=64), wishes, moments, st.integers(0, 10_000_000),
)  # fmt: skip


def tasks_of(record: JobRecord) -> st.SearchStrategy[TaskRecord]:
    """Live tasks of a job."""
    return st.builds(
        TaskRecord, job=st.just(record.id), index=st.integers(0, 2**31 - 1) if record.is_array else st.just(PLAIN), attempt=st.integers(0, 10_000),
        state=st.sampled_from(TaskState), user=st.just(record.user), slots=counts, host=hosts | st.just(""), since=moments,
        started=st.none() | moments, ended=st.none() | moments, pid=st.none() | st.integers(1, 2**62),
        outcome=st.none() | st.sampled_from(Outcome), exit_code=st.none() | st.integers(0, 255), signal=st.none() | st.integers(1, 64),
        max_rss=sizes, cpu=st.none() | st.floats(0, 1e9), reason=texts,
        native_id=st.text(max_size=60), native_state=st.text(max_size=60), native_reason=texts, native_since=st.none() | moments, is_held=st.booleans(),
    )  # fmt: skip
