"""The backend of a synthetic host with pilots: many small tasks through few native jobs, the rest as `batch` does it.

A task goes to a pilot if it fits into one: its slots, no memory or resources of its own, and a time limit that the pilot's walltime
holds. What a pilot had when it vanished is lost, and run again if it may be: the core decides that, as for any host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from logging import Logger

from hq.execserver.backends.base import Begun, Ended, Launch, News, NotBegun, NotStarted, Seen, Submitted, Waits
from hq.execserver.batch import BatchBackend
from hq.execserver.pilotfleet import Pilot, PilotFleet
from hq.execserver.pilotrelay import Link, PilotRelay
from hq.model.batch import BatchSettings
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.quantities import format_seconds
from hq.model.runs import RETURNED, NativeRun, RunReport, StartOrder
from hq.model.states import Outcome, RunKind

#: With mode auto: from so many fitting tasks at once on, pilots are worth their start.
AUTO_FROM = 20
#: With mode auto: a task that takes more of a pilot's walltime than this is a job of its own.
AUTO_SHARE = 0.1
MOST_PACES = 10_000
#: How long pilots have to come back after this exec-server did (seconds).
ORPHAN_WAIT = 60.0
#: A pilot gets nothing new when so much of its walltime is left (seconds), or a tenth.
LAST_ORDERS = 30.0
#: Tasks that wait for a pilot are told why not more often (seconds).
SAY_EVERY = 2.0

#: The signed job of an attempt and the order for it, None if it is known no more.
Lookup = Callable[[AttemptKey], tuple[StartOrder, SignedSpec] | None]


class PilotBackend:
    """See `base.Backend` for the calls, and `batch.BatchBackend` for the others. `lookup` is set by the daemon."""

    lookup: Lookup

    def __init__(self, forward: BatchBackend, fleet: PilotFleet, relay: PilotRelay, settings: BatchSettings, log: Logger) -> None:
        self.where = forward.where
        self._forward = forward
        self._fleet = fleet
        self._relay = relay
        self._settings = settings
        self._log = log
        self._fresh: list[Launch] = []
        self._queue: dict[AttemptKey, int] = {}  # slots
        self._since: dict[AttemptKey, float] = {}  # Unix time when it came
        self._given: dict[AttemptKey, str] = {}  # attempt → pilot
        self._begun: set[AttemptKey] = set()
        self._is_unheard = False  # a pilot died before it could say what it has
        self._orphans: dict[AttemptKey, float | None] = {}
        self._news: list[News] = []
        self._ended: list[Ended] = []
        self._boot = 0.0
        self._said: dict[AttemptKey, str] = {}
        self._say_next = 0.0
        self._pace: dict[int, float] = {}  # job → how long its tasks take in pilots, in seconds
        for pilot in fleet.pilots.values():
            relay.tags[pilot.key] = (pilot.tag, settings.pilot_slots)

    def bind(self, lookup: Lookup, blob: Callable[[str], bytes | None]) -> None:
        """Where signed jobs and sealed blobs are found."""
        self.lookup = lookup
        self._relay.blob = blob

    def _mode(self, launch: Launch) -> str:
        """The user's choice, else the site's."""
        return launch.mode or self._settings.mode

    def _pilot_words(self) -> str:
        settings = self._settings
        return f"{settings.pilot_slots} slots, no memory limit, no resources, a time limit (with grace) below {format_seconds(settings.pilot_time - LAST_ORDERS)}"

    def _fits(self, launch: Launch) -> bool:
        settings = self._settings
        return (
            launch.slots <= settings.pilot_slots and launch.memory is None and not launch.resources
            and (launch.time_limit is None or launch.time_limit + launch.grace < settings.pilot_time - LAST_ORDERS)
        )  # fmt: skip

    def _is_short(self, launch: Launch) -> bool:
        """Whether many such tasks go through one pilot, by their time limit, or by how long others of the job took."""
        longest = max(launch.time_limit or 0.0, self._pace.get(launch.key.job, 0.0))
        return longest <= self._settings.pilot_time * AUTO_SHARE

    def start(self, launch: Launch) -> NotStarted | Submitted:
        """As Backend.start."""
        if self._mode(launch) == "forward" or not self._fits(launch):
            if launch.mode == "pilot":
                return NotStarted(f"{self.where}: it was to run in a pilot, and does not fit into one: {self._pilot_words()}", is_refused=True)
            return self._forward.start(launch)
        self._fresh.append(launch)
        self._since[launch.key] = time.time()
        return Submitted()

    def adopt(self, key: AttemptKey, tag: str, pid: int, starttime: int, since: int | None = None) -> None:
        """As Backend.adopt: it is the pilots' to say that they have it."""
        if self._forward.knows(key):
            self._forward.adopt(key, tag, pid, starttime)
            return
        self._orphans[key] = None
        if pid:
            self._begun.add(key)

    def poll(self, boot: float) -> tuple[list[Ended], list[AttemptKey]]:
        """As Backend.poll."""
        self._boot = boot
        self._sort_fresh()
        self._hear(boot)
        self._tend(boot)
        self._deal(boot)
        self._relay.beat(boot)
        ended, _ = self._forward.poll(boot)
        ended += self._ended
        self._ended = []
        return ended, []

    def _sort_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        short = {launch.key for launch in fresh if self._mode(launch) == "auto" and self._is_short(launch)}
        if len(short) < AUTO_FROM and not any(link.free for link in self._relay.links.values()):
            short.clear()
        for launch in fresh:
            if launch.key in short or self._mode(launch) == "pilot":
                self._queue[launch.key] = launch.slots
            else:
                self._since.pop(launch.key, None)
                self._forward.start(launch)

    def _hear(self, boot: float) -> None:
        reports, batches, rolled = self._relay.receive(boot)
        for link in rolled:
            for key in list(link.runs):
                if key in self._orphans:
                    del self._orphans[key]
                    self._given[key] = link.tag
        for link, report in reports:
            self._report(link, report)
        for link, message in batches:
            self._relay.recorded(link, message)

    def _report(self, link: Link, report: RunReport) -> None:
        key = report.key
        if self._given.get(key) != link.tag and key not in self._orphans:
            return
        if key not in self._begun and report.kind is not RunKind.NEVER_STARTED:
            self._begun.add(key)
            pilot = self._fleet.pilots.get(link.tag)
            note = f"{self.where} job {pilot.id if pilot else '?'} (pilot) on {link.machine}"
            native = NativeRun(id=pilot.id if pilot else "", since=self._since.pop(key, None))
            self._news.append(Begun(key, report.pid or 0, report.started or report.at, note, native))
        if report.kind is RunKind.ENDED:
            self._note_length(link, key.job, max(0.0, report.at - (report.started or report.at)))
            cause = None if report.outcome in (None, Outcome.OK) else (report.outcome, report.reason)
            self._ended.append(Ended(key=key, exit_code=report.exit_code, signal=report.signal, max_rss=report.max_rss, cpu=report.cpu,
                                     cause=cause, at=report.at))  # fmt: skip
        elif report.kind is RunKind.NEVER_STARTED:
            self._news.append(NotBegun(key, report.reason))
        else:
            return
        self._relay.over(link, key, AttemptKey(*report.heir) if report.heir is not None else None)
        self._drop(key)

    def _note_length(self, link: Link, job: int, seconds: float) -> None:
        link.note(seconds)
        if len(self._pace) >= MOST_PACES:
            self._pace.clear()
        before = self._pace.get(job, seconds)
        self._pace[job] = before + (seconds - before) / 8

    def _tend(self, boot: float) -> None:
        slots = sum(self._queue.values()) + len(self._given)
        has_work = bool(slots or self._orphans)
        if has_work:
            for pilot in self._fleet.pilots.values():
                pilot.unwanted = None
        # what an earlier one of us had given away needs no new pilot
        self._fleet.tend(math.ceil(slots / self._settings.pilot_slots), boot)
        for pilot in list(self._fleet.pilots.values()):
            self._relay.tags[pilot.key] = (pilot.tag, self._settings.pilot_slots)
            link = self._relay.links.get(pilot.tag)
            if link is not None and link.has_rolled and pilot.began is None:
                self._fleet.note_spoken(pilot, boot)
            if link is None or link.is_silent(boot):
                self._fleet.miss(pilot, boot)
            if pilot.over is not None and boot - pilot.over > self._settings.exit_grace:
                self._bury(pilot)
            elif pilot.began is None and not has_work and pilot.id:
                # work comes and goes: what was asked for is not given up in the same breath
                pilot.unwanted = boot if pilot.unwanted is None else pilot.unwanted
                if boot - pilot.unwanted > self._settings.pilot_idle:
                    self._fleet.cancel(pilot)
            elif link is None and pilot.began is not None and pilot.over is None and not self._has(pilot.tag):
                pilot.over = boot  # it said goodbye
        # a pilot's roll has all that was given to it and is not recorded; what stands in none was given to none
        rolled = {tag for tag, link in self._relay.links.items() if link.has_rolled}
        is_told = not self._is_unheard and all(pilot.tag in rolled for pilot in self._fleet.pilots.values() if pilot.has_spoken)
        for key, since in list(self._orphans.items()):
            if is_told and key not in self._begun:
                self._news.append(NotBegun(key, "the exec-server died before it was submitted", is_again=True))
                self._drop(key)
            elif since is None:
                self._orphans[key] = boot
            elif boot - since > ORPHAN_WAIT:
                self._lose(key, "its pilot did not come back")

    def _has(self, tag: str) -> bool:
        return tag in self._given.values()

    def _bury(self, pilot: Pilot) -> None:
        for key in [key for key, tag in self._given.items() if tag == pilot.tag]:
            self._lose(key, f"{self.where}: its pilot, job {pilot.id}, ended: {pilot.word}")
        link = self._relay.links.pop(pilot.tag, None)
        self._is_unheard |= pilot.has_spoken and (link is None or not link.has_rolled)
        self._relay.tags.pop(pilot.key, None)
        self._fleet.remove(pilot)

    def _lose(self, key: AttemptKey, reason: str) -> None:
        self._ended.append(Ended(key=key, cause=(Outcome.LOST, reason)))
        self._drop(key)

    def _deal(self, boot: float) -> None:
        """Give what waits to pilots that have room and time: first what begins at once, then to each its share of what follows."""
        links = [link for link in self._relay.links.values() if self._may_get(link, boot)]
        for link in links:
            self._give(link, len(link.free))
        for number, link in enumerate(links):
            self._give(link, min(link.room, math.ceil(sum(self._queue.values()) / (len(links) - number))))
        self._say(boot)

    def _may_get(self, link: Link, boot: float) -> bool:
        """Whether a pilot is there, and has time for more."""
        pilot = self._fleet.pilots.get(link.tag)
        self._relay.promote(link)
        if pilot is None or pilot.over is not None or not link.has_rolled or not link.room or pilot.began is None:
            return False
        if boot - pilot.began > self._settings.pilot_time - max(LAST_ORDERS, self._settings.pilot_time / 10):
            self._relay.dismiss(link)
            return False
        return True

    def _give(self, link: Link, room: int) -> None:
        orders, specs = [], {}
        for key, slots in list(self._queue.items()):
            if slots > room:
                break
            found = self.lookup(key)
            del self._queue[key]
            if found is None:
                continue
            order, signed = found
            room -= slots
            specs[key.job] = signed
            orders.append(StartOrder(key.job, key.index, key.attempt, tuple(range(slots))))
            self._given[key] = link.tag
        if orders:
            self._relay.give(link, specs, orders)

    def _say(self, boot: float) -> None:
        """Tell those that wait why, when that changes, and not too often: with a pilot that has room nothing waits for long."""
        if not self._queue or boot < self._say_next:
            return
        self._say_next = boot + SAY_EVERY
        words = f"waiting at {self.where}: for a pilot: {self._fleet.summary()}"
        if (pause := self._fleet.pause(boot)) and not self._fleet.live:
            words += f" (the next one is asked for at {time.strftime('%H:%M:%S', time.localtime(time.time() + pause))})"
        for key in self._queue:
            if self._said.get(key) != words:
                self._said[key] = words
                self._news.append(Waits(key, words, NativeRun(since=self._since.get(key))))

    def facts(self) -> dict[str, str]:
        """As NewsBackend.facts."""
        pause = self._fleet.pause(self._boot)
        pilots = self._fleet.summary() + (f"; none is asked for in the next {format_seconds(pause)}" if pause else "")
        return {**self._forward.facts(), "pilots": pilots, "tasks in pilots": str(len(self._given)), "tasks for pilots": str(len(self._queue))}

    def take_news(self) -> list[News]:
        """As BatchBackend.take_news."""
        news, self._news = self._news, []
        return self._forward.take_news() + news

    def signal(self, key: AttemptKey, number: int, is_ending: bool) -> None:
        """As Backend.signal."""
        link = self._relay.links.get(self._given.get(key, ""))
        waits = key in self._queue or any(launch.key == key for launch in self._fresh)
        if waits and is_ending:
            self._take_back(key, f"it was stopped while it waited at {self.where}")
        elif link is not None and is_ending:
            self._relay.stop(link, key, "stopped")
        elif link is not None:
            self._relay.signal(link, key, number)
        elif key not in self._given:
            self._forward.signal(key, number, is_ending)

    def hold(self, key: AttemptKey, is_held: bool) -> None:
        """As NewsBackend.hold: what waits for a pilot, or in one, waits in hq as well."""
        link = self._relay.links.get(self._given.get(key, ""))
        if key in self._queue or any(launch.key == key for launch in self._fresh):
            if is_held:
                self._take_back(key, RETURNED)
        elif link is not None:
            self._relay.hold(link, key, is_held)
        elif key not in self._given and key not in self._orphans:
            self._forward.hold(key, is_held)

    def recall(self, key: AttemptKey) -> None:
        """As NewsBackend.recall. What a pilot has soon begins."""
        if key in self._queue or any(launch.key == key for launch in self._fresh):
            self._take_back(key, RETURNED)
        elif key not in self._given and key not in self._orphans:
            self._forward.recall(key)

    def _take_back(self, key: AttemptKey, reason: str) -> None:
        self._fresh = [launch for launch in self._fresh if launch.key != key]
        self._drop(key)
        self._news.append(NotBegun(key, reason))

    def look(self) -> list[Seen]:
        """As Backend.look."""
        return []

    def forget(self, key: AttemptKey) -> None:
        """As Backend.forget."""
        self._drop(key)
        self._forward.forget(key)

    def _drop(self, key: AttemptKey) -> None:
        for where in (self._queue, self._given, self._orphans, self._since, self._said):
            where.pop(key, None)
        self._begun.discard(key)

    @property
    def is_watching_leftovers(self) -> bool:
        """Never."""
        return False

    def wake(self) -> float | None:
        """As BatchBackend.wake."""
        if self._fresh or self._news or self._ended:
            return 0.0
        moments = [self._forward.wake(), self._fleet.wake(), self._relay.beat(self._boot) if self._relay.links else None]
        if self._fleet.pilots or self._queue or self._orphans:
            moments.append(self._boot + 1.0)
        return min((each for each in moments if each is not None), default=None)
