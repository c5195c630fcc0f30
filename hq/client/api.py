"""hq for Python programs: jobs are submitted and waited for over one connection to the caller's own user-server.

    with Client() as hq:
        jobs = [hq.submit(["/usr/bin/convert", name]) for name in names]
        hq.wait(jobs)

`submit` returns at once; submissions travel in a pipeline and are accepted, durably and in their order, in groups. A connection that
breaks is made again, and what was not answered is sent again: its key makes that harmless. Not for several threads at once: each takes
a Client of its own. What is asked about jobs beyond that is the business of `hq-client --json`.
"""

from __future__ import annotations

import os
from collections import deque

from hq.client.connect import Session, checked, connect
from hq.client.links import ANSWER_TIMEOUT
from hq.client.request import Here, build_request
from hq.client.submit_options import is_flag, job_option, read_value
from hq.client.waiting import exit_code_of, ranges_of, watch
from hq.errors import HqError, InputError, UnavailableError, UsageError
from hq.kernel.places import find_etc, read_client_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Any

    from hq.client.links import Link

#: Submissions that are sent before the answer to the first of them is waited for.
WINDOW = 512
#: After so many submissions it is looked for answers.
DRAIN = 32
#: How often in a row a connection may break before an answer comes.
MAX_BREAKS = 2


class Job:
    """A job that was submitted, or is on its way. After `Client.wait` it knows how it ended."""

    __slots__ = ("_client", "_error", "_id", "_message", "_note", "exit_code", "reason", "tasks")

    def __init__(self, client: Client, message: dict[str, Any]) -> None:
        self._client = client
        self._message: dict[str, Any] | None = message  # until it is answered
        self._error: HqError | None = None
        self._id = 0
        self._note = ""
        #: Tasks by state, finished ones as `finished:OUTCOME`; empty before the end.
        self.tasks: dict[str, int] = {}
        #: What a shell would see of it, the worst of an array's tasks; None before the end.
        self.exit_code: int | None = None
        #: Why it ended as it did, if there is something to say.
        self.reason = ""

    @property
    def is_answered(self) -> bool:
        """Whether it was accepted or refused already."""
        return self._message is None

    @property
    def id(self) -> int:
        """The job's id, once it is committed to the state database.

        Waits for that. Raises RefusedError or UsageError if the job was refused, UnavailableError if it is kept until hq-server is back.
        """
        self._client.settle(self)
        if self._error is not None:
            raise self._error
        if not self._id:
            raise UnavailableError(f"the job has no id yet: {self._note}")
        return self._id

    @property
    def note(self) -> str:
        """A warning about the job, or where and why it is kept. Waits and raises as `id`, but not for a job that is kept."""
        self._client.settle(self)
        if self._error is not None:
            raise self._error
        return self._note


class Client:
    """One connection to the caller's user-server, which is started if need be (`may_start`)."""

    def __init__(self, etc: str | None = None, *, may_start: bool = True) -> None:
        """Read the configuration in `etc` (default: as the commands find it). Connects with the first submission. Raises InputError."""
        self._config = read_client_config(find_etc(etc))
        self._may_start = may_start
        self._link: Link | None = None
        self._here = Here.of_process()
        self._open: deque[Job] = deque()
        self._breaks = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def submit(self, command: str | Sequence[str], **options: object) -> Job:
        """Submit a job: a list is run as it is, a text by a shell.

        `options` are those of hq-submit with `_` for `-`, their values as on its command line: `slots=4, memory="2G", array="1-100%10",
        env=["A=1"], hold=True`. Directory, umask and environment are those of this process when the Client was made. Raises UsageError or
        InputError for what cannot be meant; a refusal shows at `Job.id` and at `flush`.
        """
        words = [command] if isinstance(command, str) else list(command)
        values = job_values(options)
        values["is_argv"] = not isinstance(command, str)
        request = build_request(values, words, self._here)
        job = Job(self, {"type": "job.ask", "key": os.urandom(16).hex(), "jobs": [request], "allow_root": self._config.allow_root})
        while len(self._open) >= WINDOW:
            self._take()
        link = self._connected()
        self._open.append(job)
        try:
            link.send(job._message or {})
        except (ConnectionError, TimeoutError):
            self._reconnect()
        if not link.is_pipeline:
            self.settle(job)
        elif len(self._open) % DRAIN == 0:
            self._drain()
        return job

    def flush(self) -> None:
        """Return when everything submitted so far is durable. Raises the first refusal that nobody has seen yet."""
        first: HqError | None = None
        while self._open:
            job = self._open[0]
            self.settle(job)
            first = first or job._error
        if first is not None:
            raise first

    def wait(self, jobs: Iterable[Job]) -> int:
        """Return when all of them have ended: the exit code of the worst. Raises as `Job.id`."""
        every = {job.id: job for job in jobs}
        if not every:
            return 0
        session = Session(self._config, may_start=self._may_start)
        try:
            found = watch(session, {"ranges": ranges_of(every)}, True)
        finally:
            session.close()
        for id, job in every.items():
            if id not in found:
                raise UnavailableError(f"nothing is known of job {id} any more: hq-client details {id}")
            job.tasks, job.reason, job.exit_code = found[id]["tasks"], found[id].get("reason", ""), exit_code_of(found[id])
        return max(job.exit_code or 0 for job in every.values())

    def close(self) -> None:
        """Hang up. What was sent and not answered may be accepted or not: `flush` first."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def settle(self, job: Job) -> None:
        """Return when a job was accepted or refused. Raises UnavailableError if the user-server does not answer."""
        while job._message is not None:
            self._take()

    def _connected(self) -> Link:
        if self._link is None:
            self._link = connect(self._config, may_start=self._may_start)
        return self._link

    def _take(self, patience: float = ANSWER_TIMEOUT) -> None:
        """Read one answer: it belongs to the oldest submission that has none. With no patience, BlockingIOError: there is none yet."""
        job = self._open[0]
        try:
            answer = self._connected().receive(patience)
        except TimeoutError:
            self.close()
            raise UnavailableError(f"your user-server has not answered for {ANSWER_TIMEOUT:.0f} s; what was submitted may still be accepted") from None
        except ConnectionError:
            self._reconnect()
            return
        self._breaks = 0
        self._open.popleft()
        job._message = None
        try:
            item = checked(answer)["items"][0]
        except HqError as error:
            job._error = error
            return
        job._id, job._note = item["id"], answer.get("kept") or item.get("note", "")

    def _drain(self) -> None:
        """Take the answers that have come, so that neither side's buffers fill up."""
        while self._open:
            try:
                self._take(0.0)
            except BlockingIOError:
                return

    def _reconnect(self) -> None:
        """Connect anew and send again what was not answered."""
        while True:
            self.close()
            self._breaks += 1
            if self._breaks > MAX_BREAKS:
                raise UnavailableError("the connection to your user-server broke again and again: see its log (hq-client info)")
            link = self._connected()
            try:
                for job in self._open:
                    link.send(job._message or {})
                return
            except (ConnectionError, TimeoutError):
                continue


def job_values(options: dict[str, object]) -> dict[str, Any]:
    """The values of hq-submit's options by their Python names. Raises UsageError or InputError."""
    values: dict[str, Any] = {}
    for name, value in options.items():
        option = job_option(name)
        if option is None:
            raise UsageError(f"hq-submit has no option --{name.replace('_', '-')} that describes a job")
        if value is None:
            continue
        if is_flag(option):
            values[option.key] = bool(value)
            continue
        try:
            option.put(values, read_value(option, list(value) if isinstance(value, tuple) else value))
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
    return values

