"""log.read: output from whatever host a task ran on, piece by piece, followed while the task lives.

Where it ran is hq-server's word (log.locate), the bytes come straight from the exec-server there, by job and attempt.
A reader that is slow is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

from hq.errors import InputError
from hq.kernel.clock import Now
from hq.model.ids import TaskKey, parse_task_key
from hq.model.states import LinkState
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import LogData, LogFetch, LogLocate, LogLocated, LogRead
from hq.userserver.asker import Asker
from hq.userserver.execs import ExecLinks
from hq.userserver.upstream import ServerLink

STREAMS = ("stdout", "stderr", "log")
#: Seconds between looks at a file that may still grow, and between questions whether it may.
LOOK = 0.25
LOCATE = 1.0
#: A question that was lost with the link to its exec-server is asked again for so long. Less than an answer is waited for.
AGAIN = 20.0


@dataclass(slots=True, eq=False)
class _Flow:
    """One reader."""

    asker: Asker
    ask: LogRead
    key: TaskKey
    offset: int
    due: float = 0.0
    locate_at: float = 0.0
    is_busy: bool = False
    again_until: float = 0.0  # CLOCK_BOOTTIME; 0: nothing has been asked since the last answer
    located: LogLocated | None = None

    @property
    def is_following(self) -> bool:
        """Whether more may come after the end of the file."""
        return self.ask.is_following and (self.located is None or self.located.is_live)


class LogReader:
    """All readers."""

    def __init__(self, upstream: ServerLink, execs: ExecLinks) -> None:
        self._upstream = upstream
        self._execs = execs
        self._flows: list[_Flow] = []
        self._now = Now(0.0, 0.0)

    def __len__(self) -> int:
        return len(self._flows)

    def begin(self, asker: Asker, ask: LogRead, now: Now) -> None:
        """Serve a reader. Raises InputError for what is no task or no stream."""
        key = parse_task_key(ask.task)
        if ask.stream not in STREAMS:
            raise InputError(f"there is no stream '{ask.stream}': {', '.join(STREAMS)}")
        self._flows.append(_Flow(asker, ask, key, ask.offset, due=now.boot, locate_at=now.boot))

    def ended(self, tasks: list[TaskKey]) -> None:
        """Reports of these tasks' ends passed by: their readers need not wait."""
        if self._flows:
            names = set(tasks)
            for flow in self._flows:
                if flow.key in names:
                    flow.locate_at = min(flow.locate_at, self._now.boot + LOOK)

    def tick(self, now: Now) -> None:
        """Ask for what is due."""
        self._now = now
        self._flows = [flow for flow in self._flows if not flow.asker.is_gone]
        for flow in list(self._flows):
            if flow.is_busy or now.boot < flow.due or not flow.asker.has_room:
                continue
            if flow.located is None or (flow.is_following and now.boot >= flow.locate_at):
                self._locate(flow)
            else:
                self._fetch(flow, flow.located)

    def wake(self) -> float | None:
        """When to tick again at the latest."""
        return min((flow.due for flow in self._flows if not flow.is_busy and flow.asker.has_room), default=None)

    def _locate(self, flow: _Flow) -> None:
        flow.is_busy = True
        flow.locate_at = self._now.boot + LOCATE
        self._upstream.ask(LogLocate(task=flow.ask.task), lambda answer, is_last: self._located(flow, answer))

    def _located(self, flow: _Flow, answer: Message) -> None:
        flow.is_busy = False
        if isinstance(answer, Problem) and answer.is_transient and flow.located is not None:
            flow.due = self._now.boot + LOCATE
        elif isinstance(answer, Problem):
            self._end(flow, answer)
        elif not isinstance(answer, LogLocated):
            self._end(flow, Problem(text=f"hq-server did not tell where {flow.ask.task} ran"))
        elif not answer.host or answer.attempt < 1:
            if not (answer.is_live and flow.ask.is_following):
                self._end(flow, Problem(text=f"{flow.ask.task} has not started{' yet' if answer.is_live else ''}: there is no output", is_transient=answer.is_live))
            flow.due = self._now.boot + LOCATE
        else:
            before = flow.located
            if before is not None and (before.host, before.attempt) != (answer.host, answer.attempt):
                flow.offset = 0  # a new attempt writes anew
            flow.located = answer

    def _fetch(self, flow: _Flow, located: LogLocated) -> None:
        fetch = LogFetch(job=flow.key.job, index=flow.key.index, attempt=located.attempt, signed=located.signed, stream=flow.ask.stream,
                         offset=flow.offset)  # fmt: skip
        flow.again_until = flow.again_until or self._now.boot + AGAIN
        flow.is_busy = self._execs.ask(located.host, fetch, lambda answer: self._came(flow, answer))
        if flow.is_busy:
            return
        flow.due = self._now.boot + LOOK
        link = self._execs.links.of(located.host)
        if located.host not in self._execs.hosts:
            self._end(flow, Problem(text=f"{flow.ask.task} ran on {located.host}, which is not in the cluster any more: its output cannot be read"))
        elif link.state is LinkState.FAILED or (link.state is LinkState.SUSPECT and link.failures):
            self._end(flow, Problem(text=f"the output of {flow.ask.task} is on {located.host}: {link.reason}", is_transient=True))

    def _came(self, flow: _Flow, answer: Message) -> None:
        flow.is_busy = False
        if isinstance(answer, LogData):
            flow.again_until = 0.0
            flow.offset = answer.offset + len(answer.data)
            is_at_end = not answer.data or flow.offset >= answer.size
            is_end = is_at_end and not flow.is_following
            if answer.data or is_end:
                flow.asker.answer(LogData(data=answer.data, offset=answer.offset, size=answer.size, is_end=is_end, path=answer.path), is_last=is_end)
            if is_end:
                self._flows.remove(flow)
            flow.due = self._now.boot + (LOOK if is_at_end else 0.0)
        elif isinstance(answer, Problem) and (flow.is_following or (answer.is_transient and self._now.boot < flow.again_until)):
            flow.due = self._now.boot + LOOK  # it has not opened its files yet, or the host is silent for a moment
        else:
            self._end(flow, answer if isinstance(answer, Problem) else Problem(text="the exec-server gave no output"))

    def _end(self, flow: _Flow, problem: Problem) -> None:
        if flow in self._flows:
            self._flows.remove(flow)
            flow.asker.answer(problem)
