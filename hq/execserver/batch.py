"""The backend of synthetic hosts: a run is a job of a batch system, or an element of a native array.

Attempts that are started in one go and ask for the same become one submission. Its directory (see `batchfiles`) is written first, then
it is submitted under a tag, then its id is written down: whoever comes after a crash looks for the tag before he submits again. What
became of an attempt is what hq's runner on the node wrote; if it could not, what listing and accounting say. Absence says nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from logging import Logger
from signal import SIGTERM

from hq.errors import HqError, RefusedError
from hq.execserver.backends.base import Ended, Launch, News, NotBegun, NotStarted, Seen, Submitted
from hq.execserver.backends.dialect import Demand, Dialect, NativeState
from hq.execserver.batchcentre import Accepted, Accounted, Balked, Centre, Declined, Listed, Silent
from hq.execserver.batchfiles import Group, forbid, note_native, read_groups, read_words, remove_group, write_group
from hq.execserver.batchmembers import Member, Pending, alike, count_members, demand_of, demand_of_words, submission_of
from hq.execserver.batchstarts import lag_of, measure_lag
from hq.execserver.batchwatch import BatchWatch
from hq.execserver.noderun import TRANSLATED
from hq.kernel.daemon import Background
from hq.model.batch import BatchSettings
from hq.model.ids import AttemptKey
from hq.model.quantities import format_seconds
from hq.model.runs import RETURNED

CANCEL_AGAIN = 20.0  # seconds until a running job is cancelled once more


class BatchBackend(BatchWatch):
    """See `base.Backend` for the calls; besides them `take_news` and `wake`."""

    def __init__(self, dialect: Dialect, settings: BatchSettings, host: str, base: str, user: str, background: Background, log: Logger) -> None:
        super().__init__(f"{dialect.name}:{host}", settings, Centre(dialect, settings, user, background, log), log)
        self._dialect = dialect
        self._base = base
        self._fresh: list[Launch] = []
        self._next_look = 0.0
        self._before = {key: (group, index) for group in read_groups(base) for index, key in enumerate(group.keys)}
        if self._before:
            self._lag = measure_lag(base)

    # --- Backend ------------------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> NotStarted | Submitted:
        """As Backend.start: it is submitted with all others of this moment."""
        if launch.mode == "pilot" and not self._settings.pilot_limit:
            return NotStarted(f"{self.where}: it was to run in a pilot, and the site allows none there (pilot_limit in backends.yaml)", is_refused=True)
        try:
            self._dialect.submit_argv(submission_of(Pending(Group("", "", [launch.key]), launch.name, demand_of(launch)), self._settings))
        except RefusedError as error:
            return NotStarted(f"{self.where}: {error}", is_refused=True)
        self._fresh.append(launch)
        return Submitted()

    def knows(self, key: AttemptKey) -> bool:
        """Whether an earlier exec-server wrote the attempt down here."""
        return key in self._before

    def adopt(self, key: AttemptKey, tag: str, pid: int, starttime: int, since: int | None = None) -> None:
        """As Backend.adopt. One that was never written down was never submitted."""
        group, index = self._before.get(key, (None, 0))
        if group is None:
            self._news.append(NotBegun(key, "the exec-server died before it was submitted", is_again=True))
            return
        self._groups[group.tag] = group
        submitted = group.submitted
        member = self._members[key] = Member(key, group, index, has_begun=pid != 0, is_held=group.is_held(index))
        member.submitted = submitted + self._lag if submitted is not None else 0.0
        if group.native:
            member.id = self._dialect.element_id(group.native, index, len(group.keys))
            if member.has_begun:
                self._mark_start(member)
        elif group.tag not in self._pending:
            words = read_words(group.path(f"{index}.spec"))
            demand = demand_of_words(words) if words is not None else Demand()
            self._pending[group.tag] = Pending(group, (words or {}).get("name", "hq"), demand, must_look=True)

    def poll(self, boot: float) -> tuple[list[Ended], list[AttemptKey]]:
        """As Backend.poll; never any leftovers, for the runner on the node waits for them."""
        # besides what was over before, and nobody had come to remove
        for group in [*self._graves, *(group for group, _ in self._before.values() if group.tag not in self._groups)]:
            remove_group(group)
        self._before, self._graves = {}, []
        for told in self.centre.take(boot):
            if isinstance(told, Accepted):
                self._accepted(told, boot)
            elif isinstance(told, Declined):
                self._declined(told, boot)
            elif isinstance(told, Listed):
                self._listed(told, boot)
            elif isinstance(told, Silent):
                for member in self._members.values():
                    self._tell(member, f"not known at the moment: {self.where} does not answer: {told.words}")
            elif isinstance(told, Balked):
                self._balked(told)
            elif isinstance(told, Accounted):
                # the books are behind: what they call waiting or running may be over for long
                over = {id: job for id, job in told.jobs.items() if job.state is NativeState.ENDED}
                for member in [each for each in self._members.values() if each.absent is not None and each.id in over]:
                    self._see(member, over[member.id], boot)
        self._form(boot)
        self._submit(boot)
        if boot >= self._next_look:
            self._next_look = boot + self._settings.look_interval
            self._look(boot)
        absent = [member.id for member in self._members.values() if member.absent is not None and member.final is None]
        self.centre.tend([member.id for member in self._members.values() if member.id], absent, boot)
        ended, self._ended = self._ended, []
        return ended, []

    def take_news(self) -> list[News]:
        """What became known of runs since the last time, apart from their ends."""
        news, self._news = self._news, []
        return news

    def signal(self, key: AttemptKey, number: int, is_ending: bool) -> None:
        """As Backend.signal. What has not begun never does; one that does not end of TERM and KILL in time is cancelled there."""
        member = self._members.get(key)
        if member is None:
            if is_ending:
                self._drop_fresh(key, "it was stopped before it was submitted")
            return
        if not is_ending:
            if member.has_begun:
                self.centre.order("signal", [member.id], TRANSLATED.get(number, number))  # type: ignore[call-overload]
            return
        member.is_stopped = True
        if not member.has_begun and self._forbid(member, f"it was stopped while it waited at {self.where}"):
            return
        if number == SIGTERM and member.has_begun:
            self.centre.order("signal", [member.id], number)
        elif member.id and time.monotonic() - member.cancelled >= CANCEL_AGAIN:
            member.cancelled = time.monotonic()
            self.centre.order("cancel", [member.id])

    def hold(self, key: AttemptKey, is_held: bool) -> None:
        """As NewsBackend.hold."""
        member = self._members.get(key)
        if member is None:
            if is_held:
                self._drop_fresh(key, RETURNED)
            return
        if member.has_begun or member.is_stopped or member.is_held == is_held:
            return
        pending = self._pending.get(member.group.tag)
        if is_held and not member.id and not (pending is not None and pending.is_under_way) and self._forbid(member, RETURNED):
            return
        self._note_held(member, is_held)
        if member.id:
            self.centre.order("hold" if is_held else "release", [member.id])
            self.centre.hurry()

    def recall(self, key: AttemptKey) -> None:
        """As NewsBackend.recall."""
        member = self._members.get(key)
        if member is None:
            self._drop_fresh(key, RETURNED)
        elif not member.has_begun and not member.is_stopped and not member.is_held:
            self._forbid(member, RETURNED)

    def _note_held(self, member: Member, is_held: bool, refusal: str = "") -> None:
        member.is_held, member.refusal = is_held, refusal
        try:
            member.group.mark_held(member.index, is_held)
        except OSError as error:
            self._log.warning("%s: %s", member.key, error)
        if member.id:
            self._tell(member, member.reason)

    def _balked(self, told: Balked) -> None:
        for member in [each for each in self._members.values() if each.id == told.id and not each.has_begun]:
            is_held = told.what == "release"
            self._note_held(member, is_held, f"it could not be {'released' if is_held else 'held'}: {told.words}")

    def _drop_fresh(self, key: AttemptKey, reason: str) -> None:
        """Take back what was started and not submitted yet."""
        fresh = [launch for launch in self._fresh if launch.key == key]
        self._fresh = [launch for launch in self._fresh if launch.key != key]
        self._news.extend(NotBegun(launch.key, reason) for launch in fresh)

    def _forbid(self, member: Member, reason: str) -> bool:
        """See to it that it never begins; False if it has begun."""
        try:
            if not forbid(member.group, member.index):
                return False
        except OSError as error:
            self._log.warning("%s: %s", member.key, error)
            return False
        if member.id:
            self.centre.order("cancel", [member.id])
        self._news.append(NotBegun(member.key, reason))
        self._drop(member)
        return True

    def look(self) -> list[Seen]:
        """As Backend.look: the runner measures, and has its limit."""
        return []

    def forget(self, key: AttemptKey) -> None:
        """As Backend.forget. The directory goes with its last attempt."""
        member = self._members.get(key)
        if member is not None:
            self._drop(member)

    @property
    def is_watching_leftovers(self) -> bool:
        """Never."""
        return False

    def wake(self) -> float | None:
        """When `poll` has something to do even if no command ends. CLOCK_BOOTTIME."""
        if self._fresh or self._news or self._ended or self._graves:
            return 0.0
        moments = [pending.next_try for pending in self._pending.values() if not pending.is_under_way]
        moments += [each for each in (self.centre.wake(bool(self._members)), self._next_look if self._members else None) if each is not None]
        return min(moments, default=None)

    def facts(self) -> dict[str, str]:
        """As NewsBackend.facts."""
        away = f"does not answer: {self.centre.silence}" if self.centre.silence else "answers"
        return {self.where: away, "native jobs": count_members(self._members.values())}

    # --- submissions ----------------------------------------------------------------------------------------------

    def _form(self, boot: float) -> None:
        """Make submissions of what was started since: those of one job with the same demand together."""
        fresh, self._fresh = self._fresh, []
        # two fit, so that a few that wait for long do not keep all others back
        for demand, part in alike(fresh, max(1, min(self._settings.max_array, self._settings.max_pending // 2))):
            tag = f"hq-{secrets.token_hex(10)}"
            try:
                group = write_group(self._base, tag, part, self._dialect.index_variable, self._settings.python)
            except (OSError, HqError) as error:
                remove_group(Group(tag, os.path.join(self._base, tag), []))
                self._news.extend(NotBegun(launch.key, f"{self._base} cannot be written: {error}") for launch in part)
                continue
            self._groups[tag] = group
            self._pending[tag] = Pending(group, part[0].name, demand)
            for index, launch in enumerate(part):
                self._members[launch.key] = Member(launch.key, group, index, since=boot)

    def _submit(self, boot: float) -> None:
        waiting = sum(1 for member in self._members.values() if member.id and not member.has_begun)
        for pending in self._pending.values():
            if not self.centre.is_free:
                return
            size = len(pending.group.keys)
            if waiting and waiting + size > self._settings.max_pending:
                for key in pending.group.keys:
                    if key in self._members:
                        self._tell(self._members[key], f"held back: {waiting} jobs wait there, its limit is {self._settings.max_pending} (max_pending)")
                return
            if pending.next_try <= boot and not pending.is_under_way:
                pending.is_under_way = True
                self.centre.submit(submission_of(pending, self._settings), pending.must_look)

    def _accepted(self, told: Accepted, boot: float) -> None:
        pending = self._pending.pop(told.tag, None)
        group = pending.group if pending is not None else None
        if group is None or not os.path.isdir(group.directory):
            self.centre.order("cancel", [told.id])  # all of it was stopped meanwhile
            return
        try:
            note_native(group, told.id)
        except OSError as error:
            self._log.error("%s: its id %s cannot be written down: %s", group.tag, told.id, error)
            group.native = told.id
        self._lag = lag_of(group.path("native"))
        self._log.info("%s: %d tasks are job %s%s", self.where, len(group.keys), told.id, ", found by its tag" if told.is_found else "")
        gone = []
        for index, key in enumerate(group.keys):
            id = self._dialect.element_id(told.id, index, len(group.keys))
            member = self._members.get(key)
            if member is None or (member.id and member.id != id):
                gone.append(id)  # it was stopped meanwhile, or began as a job that had been accepted before
                continue
            member.id, member.submitted, member.listable = id, time.time(), boot
            self._tell(member, "submitted")
        self.centre.order("cancel", gone)
        self.centre.order("hold", [member.id for key in group.keys if (member := self._members.get(key)) is not None and member.is_held])
        self.centre.hurry()

    def _declined(self, told: Declined, boot: float) -> None:
        pending = self._pending.get(told.tag)
        if pending is None:
            return
        pending.is_under_way = False
        members = [self._members[key] for key in pending.group.keys if key in self._members]
        if not told.is_again or not members:
            del self._pending[told.tag]
            for member in members:
                self._news.append(NotBegun(member.key, f"{self.where}: {told.words}", is_refused=True))
                self._drop(member)
            return
        delays = self._settings.retry_delays
        pause = delays[min(pending.tries, len(delays) - 1)]
        pending.tries, pending.next_try, pending.must_look = pending.tries + 1, boot + pause, True
        for member in members:
            self._tell(member, f"not submitted yet: {told.words} (next try in {format_seconds(pause)})")
