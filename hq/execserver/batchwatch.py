"""What is seen of attempts at a batch system: its listings, the files of hq's runners, and what follows from both. Nothing is submitted here."""

from __future__ import annotations

import time
from logging import Logger

from hq.execserver.backends.base import Ended, Halted, News, NotBegun
from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.batchcentre import Centre, Listed
from hq.execserver.batchfiles import Group, read_words
from hq.execserver.batchjudge import Verdict, judge
from hq.execserver.batchmembers import Member, Pending
from hq.execserver.batchstarts import Start, begin, note_start, strays
from hq.model.batch import BatchSettings
from hq.model.ids import AttemptKey
from hq.model.states import Outcome


class BatchWatch:
    """The attempts of one exec-server at a batch system, and the news of them. `where` is its name for people."""

    def __init__(self, where: str, settings: BatchSettings, centre: Centre, log: Logger) -> None:
        self.where = where
        self.centre = centre
        self._settings = settings
        self._log = log
        self._members: dict[AttemptKey, Member] = {}
        self._pending: dict[str, Pending] = {}
        self._groups: dict[str, Group] = {}
        self._news: list[News] = []
        self._ended: list[Ended] = []
        self._graves: list[Group] = []  # to be removed once what became of them is in the journal
        self._lag = 0.0  # of the shared file system's clock

    def _listed(self, told: Listed, boot: float) -> None:
        self.centre.order("cancel", strays(told.jobs, self._members.values()))
        for member in [each for each in self._members.values() if each.id]:
            job = told.jobs.get(member.id)
            if job is not None and job.state is NativeState.PENDING and member.has_begun and told.asked < member.listable:
                continue  # it was asked for before it began
            if job is not None:
                self._see(member, job, boot)
            elif told.asked >= member.listable and member.final is None:
                if member.absent is None:
                    member.absent = boot
                self._tell(member, "listed no more, and nothing says yet how it ended")

    def _see(self, member: Member, job: NativeJob, boot: float) -> None:
        member.job = job
        if job.state is NativeState.ENDED:
            member.absent = None
            if member.final is None:
                member.final = boot
        elif job.state is NativeState.PENDING and member.has_begun:
            self.centre.order("cancel", [member.id])
            self._end(member, Verdict((Outcome.LOST, f"{self.where} stopped it and queued it again ({job.reason or job.word})")))
        elif job.state is NativeState.PENDING:
            self._tell(member, job.reason or job.word.lower())
        elif member.has_begun and member.is_halted != (job.state is NativeState.SUSPENDED):
            member.is_halted = not member.is_halted
            self._news.append(Halted(member.key, member.is_halted, f"suspended at {self.where}" if member.is_halted else ""))
        if member.has_begun and job.state is NativeState.RUNNING:
            self._tell(member, "")

    def _look(self, boot: float) -> None:
        """Read the runners' files."""
        seen: dict[str, set[str]] = {}
        for member in list(self._members.values()):
            tag = member.group.tag
            if tag not in seen:
                seen[tag] = member.group.names()
            names = seen[tag]
            if not member.has_begun and f"{member.index}.start" in names:
                member.listable = boot
                self._begin(member)
            if member.exit is None and f"{member.index}.exit" in names:
                member.exit = read_words(member.group.path(f"{member.index}.exit"))
            self._conclude(member, boot)

    def _begin(self, member: Member) -> None:
        start = self._mark_start(member)
        if start is not None:
            self._news.append(begin(member, start, self.where))

    def _mark_start(self, member: Member) -> Start | None:
        """Take over what the runner's mark says."""
        found = note_start(member, self._lag)
        if found is None:
            return None
        start, other = found
        if other:
            self._log.warning("job %s was accepted twice: it began as %s", other, start.id)
            self.centre.order("cancel", [other])
        return start

    def _conclude(self, member: Member, boot: float) -> None:
        """Whether it is over, as far as is known."""
        verdict = judge(member, boot, self._settings, self.where)
        if verdict is not None and verdict.never:
            self._news.append(NotBegun(member.key, verdict.never))
            self._drop(member)
        elif verdict is not None:
            self._end(member, verdict)

    def _end(self, member: Member, verdict: Verdict) -> None:
        if not member.has_begun:
            self._begin(member)
        self._ended.append(Ended(key=member.key, exit_code=verdict.exit_code, signal=verdict.signal, max_rss=verdict.max_rss, cpu=verdict.cpu,
                                 cause=verdict.cause, at=None if verdict.at is None else min(time.time(), verdict.at + member.skew)))  # fmt: skip
        self._drop(member)

    def _tell(self, member: Member, reason: str) -> None:
        member.reason = reason
        told = member.waits(self.where)
        if told != member.told:
            member.told = told
            self._news.append(told)

    def _drop(self, member: Member) -> None:
        self._members.pop(member.key, None)
        group = member.group
        if not any(key in self._members for key in group.keys):
            self._groups.pop(group.tag, None)
            if group.tag in self._pending and not self._pending[group.tag].is_under_way:
                del self._pending[group.tag]
            self._graves.append(group)
