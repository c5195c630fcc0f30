"""What a job is: the signed part (`JobSpec`), the part its owner may still change (`Wishes`), and the server's record.

Paths, words of the command and environment are bytes: Unix promises no encoding. Times are seconds, sizes bytes,
moments Unix time of hq-server's clock unless a field says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hq.errors import InputError
from hq.model.ids import PLAIN, TaskKey
from hq.model.indexset import IndexSet, parse_array
from hq.model.states import Outcome, OutputAction, TaskState

DEFAULT_OUTPUT_LIMIT = 1 << 30
DEFAULT_GRACE = 10.0
MAX_TEXT = 1024  # characters of a name, a group, an info text
MAX_PATH = 4096  # bytes, PATH_MAX
MAX_WORD = 128 * 1024 - 1  # bytes of one word of a command: MAX_ARG_STRLEN of execve(2)
MAX_COMMAND = 1536 * 1024  # bytes of all words
MAX_PRIORITY = 127
MODES = ("forward", "pilot", "auto")  # a native job for each task; through pilots; by count and length
MAX_AFTER = 1000  # jobs that one may wait for


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What the user signed. The exec-server runs this and nothing else; hq-server cannot alter it.

    `argv` is the argument list; with `is_shell` it is one word, run by `shell -c`. With `script` the digest of a sealed
    script is given and `argv` are its arguments. `env` is the digest of the sealed environment. `indices` is the array's
    index set as text, empty for a plain job. Limits are what the user asked; hq-server may only tighten them.
    """

    instance: str
    user: str
    key: str  # submission key: a repeated submission makes the same job
    name: str
    argv: tuple[bytes, ...]
    is_shell: bool = False
    shell: bytes = b"/bin/sh"
    script: str = ""
    env: str = ""
    cwd: bytes = b"/"
    umask: int = 0o077
    stdin: bytes = b""  # empty: /dev/null
    stdout: bytes = b""  # template; empty: the default in the user's job directory
    stderr: bytes = b""
    logfile: bytes = b""  # both streams and a summary, hQ's -l; empty: none
    indices: str = ""
    slots: int = 1
    memory: int | None = None
    time_limit: float | None = None
    grace: float = DEFAULT_GRACE
    resources: dict[str, int] = field(default_factory=dict)
    output_limit: int = DEFAULT_OUTPUT_LIMIT
    output_action: OutputAction = OutputAction.TRIM
    is_rerunnable: bool = False
    retries: int = 0
    nice: int = 0
    retry_on: tuple[int, ...] = ()  # exit codes (128+n for signal n) that retries are for; empty: all
    warn_signal: int = 0  # sent `warn_before` seconds before the time limit; 0: none
    warn_before: float = 0.0
    mode: str = ""  # at a batch system, one of MODES; empty: as the site has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the owner asks of the scheduler and may change while the job waits. Not signed: it decides where and when, never what."""

    priority: int = 0
    group: str = ""
    info: str = ""
    hosts: tuple[str, ...] = ()  # empty: any
    exclude: tuple[str, ...] = ()
    queue: str = ""
    throttle: int | None = None  # tasks of an array at once
    begin: float | None = None  # not before this moment
    after: tuple[int, ...] = ()  # jobs that must have ended well before; those that have are struck out
    after_any: tuple[int, ...] = ()  # jobs that must have ended before, however
    is_held: bool = False
    estimated_time: float | None = None
    estimated_memory: int | None = None


@dataclass(frozen=True, slots=True)
class SignedSpec:
    """The bytes of a spec as signed, stored and forwarded verbatim, and the Ed25519 signature over them."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as hq-server keeps it.

    `cancelled_rest`: so many tasks of the array were cancelled at once while they had never left waiting; they have no TaskRecord,
    and every count of finished tasks adds them to the cancelled ones.
    """

    id: int
    user: str
    spec: JobSpec
    signed: SignedSpec
    wishes: Wishes
    submitted: float
    ended: float | None = None
    cancelled_rest: int = 0

    @property
    def is_array(self) -> bool:
        """Whether the job was submitted with an index set."""
        return bool(self.spec.indices)

    def index_set(self) -> IndexSet | None:
        """The parsed index set; None for a plain job."""
        return parse_array(self.spec.indices)[0] if self.spec.indices else None

    def with_wishes(self, **changes: object) -> JobRecord:
        """A copy with some wishes changed."""
        return replace(self, wishes=replace(self.wishes, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task that has left `waiting` at least once, at its latest attempt.

    `attempt` is 0 before the first start (a task that was held, released or cancelled by itself). While the task is placed, `outcome`
    says what was ordered: CANCELLED (is being cancelled), LOST (the attempt is given up, the task will wait again), None: runs on.
    A task that left waiting out of the order of the array stays among the live ones, even FINISHED, until all before it have left.

    `exit_code` and `signal` exclude each other. `max_rss` is bytes, `cpu` seconds of user and system time.
    `started` and `ended` are the exec-server's words, moved to hq-server's clock by the time the report took.

    `native_…`: its job at a batch system, that system's own words for state and reason, and since when it has been waiting there; so
    from `native_since` to `started` is the batch system's time, all before it hq's. `is_held`: its owner holds it although it is placed:
    it is not to start, wherever it waits.
    """

    job: int
    index: int
    attempt: int
    state: TaskState
    user: str
    slots: int
    host: str = ""
    since: float = 0.0  # when `state` was entered
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    reason: str = ""
    native_id: str = ""
    native_state: str = ""
    native_reason: str = ""
    native_since: float | None = None
    is_held: bool = False

    @property
    def key(self) -> TaskKey:
        """The task's name."""
        return TaskKey(self.job, self.index)

    @property
    def shown_state(self) -> TaskState:
        """The state as people see it: what is held where it waits is held."""
        return TaskState.HELD if self.is_held and self.state is TaskState.STARTING else self.state

    def native_wait(self, now: float) -> float | None:
        """Seconds that it waited at a batch system, up to now if it waits there still. None: at none."""
        if self.native_since is None:
            return None
        until = self.started if self.started is not None else self.ended if self.state is TaskState.FINISHED else None
        return max(0.0, (now if until is None else until) - self.native_since)


def check_spec(spec: JobSpec) -> None:
    """Refuse a spec that no database column or kernel would take. Raises InputError that names the field."""
    for label, text in (("name", spec.name), ("submission key", spec.key)):
        if len(text) > MAX_TEXT:
            raise InputError(f"the {label} has {len(text):,} characters; at most {MAX_TEXT} are allowed")
    for label, path in (("working directory", spec.cwd), ("stdin", spec.stdin), ("stdout", spec.stdout),
                        ("stderr", spec.stderr), ("logfile", spec.logfile), ("shell", spec.shell)):  # fmt: skip
        if len(path) > MAX_PATH:
            raise InputError(f"the path for {label} is longer than {MAX_PATH} bytes")
        if b"\0" in path:
            raise InputError(f"the path for {label} has a NUL byte")
    if not spec.argv and not spec.script:
        raise InputError("there is no command")
    if any(b"\0" in word for word in spec.argv):
        raise InputError("a word of the command has a NUL byte")
    if max(map(len, spec.argv), default=0) > MAX_WORD:
        raise InputError(
            f"a word of the command has {max(map(len, spec.argv)):,} bytes; the kernel takes at most {MAX_WORD:,}: submit it with --script FILE"
        )
    if sum(map(len, spec.argv)) > MAX_COMMAND:
        raise InputError(f"the command line is longer than {MAX_COMMAND:,} bytes: submit it with --script FILE")
    if spec.slots < 1 or spec.slots > 1_000_000:
        raise InputError(f"{spec.slots} slots were asked for; a job takes one or more")
    if not 0 <= spec.retries <= 1000:
        raise InputError(f"{spec.retries} retries were asked for; 0 to 1000 are allowed")
    if spec.retry_on and (not spec.retries or len(spec.retry_on) > 256 or not all(1 <= code <= 255 for code in spec.retry_on)):
        raise InputError("exit codes to retry on are 1 to 255, and need a number of retries (--retries)")
    if spec.warn_signal and (not 1 <= spec.warn_signal <= 64 or spec.time_limit is None or not 0 < spec.warn_before < spec.time_limit):
        raise InputError("a signal before the time limit needs a time limit (-t) that is longer than the time before it")
    if not 0 <= spec.nice <= 19:
        raise InputError(f"nice {spec.nice}: 0 to 19 are allowed")
    if not 0 <= spec.umask <= 0o777:
        raise InputError(f"umask {spec.umask:o} is not a file mode mask")
    if spec.mode not in ("", *MODES):
        raise InputError(f"the mode '{spec.mode[:40]}' is none of {', '.join(MODES)}")
    if spec.indices:
        parse_array(spec.indices)
    for name, count in spec.resources.items():
        if not name or len(name) > 64 or count < 1 or count > 2**31:
            raise InputError(f"resource {name}={count}: a name and a number from 1 are expected")


def check_wishes(wishes: Wishes) -> None:
    """Refuse wishes outside their ranges. Raises InputError that names the field."""
    if not 0 <= wishes.priority <= MAX_PRIORITY:
        raise InputError(f"priority {wishes.priority}: 0 to {MAX_PRIORITY} are allowed, higher runs first")
    for label, text in (("group", wishes.group), ("info text", wishes.info)):
        if len(text) > MAX_TEXT:
            raise InputError(f"the {label} has {len(text):,} characters; at most {MAX_TEXT} are allowed")
    if len(wishes.hosts) > 10_000 or len(wishes.exclude) > 10_000:
        raise InputError("more than 10,000 hosts were named")
    if len(wishes.after) + len(wishes.after_any) > MAX_AFTER:
        raise InputError(f"{len(wishes.after) + len(wishes.after_any):,} jobs to start after were named; at most {MAX_AFTER:,} are allowed: wait for one that waits for some of them")
    if not all(0 < id < 1 << 62 for id in (*wishes.after, *wishes.after_any)):
        raise InputError("a job to start after is named by its number, from 1")


def task_of(job: JobRecord, index: int) -> TaskKey:
    """The key of a job's task; asserts that a plain job has index PLAIN."""
    assert job.is_array != (index == PLAIN)
    return TaskKey(job.id, index)


#: What `--wait` returns for outcomes that leave no exit code of the job's own.
_EXIT_CODES = {
    Outcome.OK: 0,
    Outcome.CANCELLED: 1,
    Outcome.LOST: 1,
    Outcome.TIMEOUT: 124,  # as timeout(1)
    Outcome.REFUSED: 126,
    Outcome.MEMORY: 137,  # as a shell says it of the out-of-memory killer
}


def exit_code_of(outcome: Outcome, exit_code: int | None, signal: int | None) -> int:
    """The code that a waiting command returns for a finished task, 0 to 255: the job's own, 128+n for signal n, else by outcome.

    The worst of several tasks is the largest.
    """
    fixed = _EXIT_CODES.get(outcome)
    if fixed is not None:
        return fixed
    if signal:
        return min(128 + signal, 255)
    return min(max(exit_code or 0, 1), 255)
