"""Messages about jobs: submit, act, query, explain, watch, read output."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from hq.model.changes import AuditRecord
from hq.model.job import DEFAULT_GRACE, DEFAULT_OUTPUT_LIMIT, SignedSpec, Wishes
from hq.model.rows import GroupRow, JobCounts, Moment, Row
from hq.model.selection import Selection
from hq.model.states import OutputAction
from hq.protocol.base import ADMIN, CLIENT, DOWN, EXEC, USER, Message


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as the command line asks for it, before the user-server seals and signs it. Fields as in `hq.model.job.JobSpec`.

    `env` holds `NAME=value` pairs. In JSON, bytes are base64. `line` is the number in a jobs file, for error messages.
    """

    argv: tuple[bytes, ...] = ()
    is_shell: bool = False
    shell: bytes = b"/bin/sh"
    script: bytes | None = None
    env: tuple[bytes, ...] = ()
    name: str = ""
    cwd: bytes = b"/"
    umask: int = 0o077
    stdin: bytes = b""
    stdout: bytes = b""
    stderr: bytes = b""
    logfile: bytes = b""
    indices: str = ""
    slots: int = 1
    memory: int | None = None
    time_limit: float | None = None
    grace: float = DEFAULT_GRACE
    resources: dict[str, int] = {}
    output_limit: int = DEFAULT_OUTPUT_LIMIT
    output_action: OutputAction = OutputAction.TRIM
    is_rerunnable: bool | None = None  # None: arrays are, plain jobs are not
    retries: int = 0
    nice: int = 0
    mode: str = ""
    retry_on: tuple[int, ...] = ()
    warn_signal: int = 0
    warn_before: float = 0.0
    wishes: Wishes = Wishes()
    line: int | None = None


class JobAsk(Message, frozen=True, kw_only=True, tag="job.ask"):
    """Submit jobs, all or none. `key` makes a repetition after a time-out harmless: one random text a command."""

    sent_by: ClassVar = CLIENT
    answered_by: ClassVar = ("job.submitted", "problem")
    key: str
    jobs: tuple[JobRequest, ...]
    is_dry_run: bool = False
    allow_root: bool = False


class SubmitItem(msgspec.Struct, frozen=True, array_like=True):
    """One signed job: submission key (unique per user), the spec as signed, and the wishes."""

    key: str
    signed: SignedSpec
    wishes: Wishes


class JobSubmit(Message, frozen=True, kw_only=True, tag="job.submit"):
    """Signed jobs, all or none. `blobs`: sealed environments and scripts by digest that the server may not have."""

    sent_by: ClassVar = USER
    answered_by: ClassVar = ("job.submitted", "problem")
    items: tuple[SubmitItem, ...]
    blobs: dict[str, bytes] = {}
    is_dry_run: bool = False


class SubmittedItem(msgspec.Struct, frozen=True):
    """An accepted job. `note` is a warning for the submitter, or where it would run (dry run). `id` is 0 in a dry run."""

    key: str
    id: int
    tasks: int
    note: str = ""


class JobSubmitted(Message, frozen=True, kw_only=True, tag="job.submitted"):
    """The jobs are committed to the state database; or, with `kept`, they wait in their user-server's spool (there, and why), and have no ids yet."""

    sent_by: ClassVar = DOWN | USER
    items: tuple[SubmittedItem, ...]
    kept: str = ""


class JobAct(Message, frozen=True, kw_only=True, tag="job.act"):
    """Do something to jobs. `action`: cancel, hold, release, requeue, signal, modify, resolve. `changes`: fields of Wishes as text, for modify;
    for resolve `as`: ok, failed, lost or requeue."""

    sent_by: ClassVar = CLIENT | USER | ADMIN
    answered_by: ClassVar = ("job.acted", "problem")
    action: str
    selection: Selection
    signal: int | None = None
    changes: dict[str, str] = {}
    reason: str = ""


class ActResult(msgspec.Struct, frozen=True):
    """What became of the action on one job or task."""

    id: str
    is_done: bool
    text: str = ""


class JobActed(Message, frozen=True, kw_only=True, tag="job.acted"):
    """Answer to job.act, one result a job or task that was selected."""

    sent_by: ClassVar = DOWN | USER
    results: tuple[ActResult, ...]


class JobQuery(Message, frozen=True, kw_only=True, tag="job.query"):
    """List jobs, newest first. An empty selection: the live ones and the lately ended. `by_task`: a row a task."""

    sent_by: ClassVar = CLIENT | USER | ADMIN
    answered_by: ClassVar = ("job.rows", "problem")
    selection: Selection
    by_task: bool = False
    limit: int | None = 1000
    every_user: bool = False


class JobRows(Message, frozen=True, kw_only=True, tag="job.rows"):
    """Answer to job.query."""

    sent_by: ClassVar = DOWN | USER
    rows: tuple[Row, ...]
    is_cut: bool = False


class JobShow(Message, frozen=True, kw_only=True, tag="job.show"):
    """Everything about one job or task."""

    sent_by: ClassVar = CLIENT | USER | ADMIN
    answered_by: ClassVar = ("job.shown", "problem")
    task: str


class JobShown(Message, frozen=True, kw_only=True, tag="job.shown"):
    """Answer to job.show: the row, the facts of the request in order, and the history."""

    sent_by: ClassVar = DOWN | USER
    row: Row
    facts: dict[str, str | int | float | bool | None]
    history: tuple[Moment, ...]


class JobExplain(Message, frozen=True, kw_only=True, tag="job.explain"):
    """Why does it wait, where does it run, how did it end."""

    sent_by: ClassVar = CLIENT | USER | ADMIN
    answered_by: ClassVar = ("job.explained", "problem")
    task: str


class JobExplained(Message, frozen=True, kw_only=True, tag="job.explained"):
    """Answer to job.explain: sentences, and per host what stands against it."""

    sent_by: ClassVar = DOWN | USER
    task: str
    sentences: tuple[str, ...]


class JobWatch(Message, frozen=True, kw_only=True, tag="job.watch"):
    """Tell me how these jobs go on until all have finished. Answered by a stream of job.progress, the first one at once."""

    sent_by: ClassVar = CLIENT | USER
    answered_by: ClassVar = ("job.progress", "problem")
    selection: Selection


class JobUnwatch(Message, frozen=True, kw_only=True, tag="job.unwatch"):
    """Nobody listens to the watch any more that was asked for with this request number."""

    sent_by: ClassVar = USER
    request: int


class JobProgress(Message, frozen=True, kw_only=True, tag="job.progress"):
    """News of watched jobs. `is_done`: all have finished, nothing more comes. `note`: a word of the user-server for the person who waits."""

    sent_by: ClassVar = DOWN | USER
    jobs: tuple[JobCounts, ...]
    is_done: bool
    note: str = ""


class GroupQuery(Message, frozen=True, kw_only=True, tag="group.query"):
    """The caller's groups, or one of them, with counts by state."""

    sent_by: ClassVar = CLIENT | USER
    answered_by: ClassVar = ("group.rows", "problem")
    group: str | None = None


class GroupRows(Message, frozen=True, kw_only=True, tag="group.rows"):
    """Answer to group.query."""

    sent_by: ClassVar = DOWN | USER
    rows: tuple[GroupRow, ...]


class AuditQuery(Message, frozen=True, kw_only=True, tag="audit.query"):
    """What was done about the caller and his jobs and keys, by whom; the latest first."""

    sent_by: ClassVar = CLIENT | USER
    answered_by: ClassVar = ("audit.rows", "problem")
    limit: int = 100


class AuditRows(Message, frozen=True, kw_only=True, tag="audit.rows"):
    """Answer to audit.query."""

    sent_by: ClassVar = DOWN | USER
    rows: tuple[AuditRecord, ...]


class LogRead(Message, frozen=True, kw_only=True, tag="log.read"):
    """Read output by job id, never by path. `stream`: stdout, stderr or log. Answered by log.data until `is_end`; with `is_following` while it runs."""

    sent_by: ClassVar = CLIENT
    answered_by: ClassVar = ("log.data", "problem")
    task: str
    stream: str = "stdout"
    offset: int = 0  # negative: from the end
    is_following: bool = False


class LogLocate(Message, frozen=True, kw_only=True, tag="log.locate"):
    """A user-server asks where a task of its user ran."""

    sent_by: ClassVar = USER
    answered_by: ClassVar = ("log.located", "problem")
    task: str


class LogLocated(Message, frozen=True, kw_only=True, tag="log.located"):
    """The host, attempt and spec of a task; `is_live` while it may still write."""

    sent_by: ClassVar = DOWN
    task: str
    host: str
    attempt: int
    signed: SignedSpec
    is_live: bool


class LogFetch(Message, frozen=True, kw_only=True, tag="log.fetch"):
    """A user-server asks its exec-server for a piece of output. The path follows from the signed spec, so none is named."""

    sent_by: ClassVar = USER
    answered_by: ClassVar = ("log.data", "problem")
    job: int
    index: int
    attempt: int
    signed: SignedSpec
    stream: str
    offset: int
    limit: int = 1 << 18


class LogData(Message, frozen=True, kw_only=True, tag="log.data"):
    """A piece of output. `offset` is where it begins, `size` the file's size then. `is_end`: nothing more comes."""

    sent_by: ClassVar = EXEC | USER
    data: bytes
    offset: int
    size: int
    is_end: bool
    path: str = ""
