"""The native side of pilots: how many there are, asked for and given up by demand, each a job of the batch system.

A pilot's directory has its bootstrap (0600, with its key), the script (which names that directory and nothing else), `job.json`, and `spoken`
from when it was first heard.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from dataclasses import dataclass
from logging import Logger

import msgspec

from hq.errors import HqError, RefusedError
from hq.execserver.backends.dialect import Demand, NativeJob, NativeState, Submission
from hq.execserver.batchcentre import Accepted, Accounted, Centre, Declined, Listed, Silent
from hq.execserver.batchfiles import Group, read_words, remove_group
from hq.execserver.bootstrap import Bootstrap
from hq.kernel.files import make_private_dir, write_secret
from hq.kernel.keys import make_curve_pair
from hq.model.batch import BatchSettings


@dataclass(slots=True)
class Pilot:
    """One of them. `began`: CLOCK_BOOTTIME when it first spoke; `over`: since when it is known to have ended; `absent`: since when it is not
    listed, which says nothing by itself."""

    tag: str
    key: str
    group: Group
    id: str = ""
    asked: float = 0.0
    began: float | None = None
    over: float | None = None
    absent: float | None = None
    word: str = ""
    unwanted: float | None = None  # CLOCK_BOOTTIME since when nothing waits for it
    is_given_up: bool = False
    has_spoken: bool = False  # ever: only then something was given to it


class PilotFleet:
    """All pilots of one exec-server. `base` is on the file system that the nodes share."""

    def __init__(self, centre: Centre, settings: BatchSettings, base: str, told: Bootstrap, upstreams: tuple[str, ...], public: str, log: Logger) -> None:
        self.pilots: dict[str, Pilot] = {}
        self.trouble = ""
        self._centre = centre
        self._settings = settings
        self._base = make_private_dir(base)
        self._told = told
        self._upstreams = upstreams
        self._public = public
        self._log = log
        self._not_before = 0.0
        self._submitting = ""
        self._graves: list[Group] = []
        for tag in sorted(os.listdir(base)):
            group = Group(tag, os.path.join(base, tag), [])
            words = read_words(group.path("job.json"))
            if words is not None:
                has_spoken = "spoken" in group.names() or not words.get("is_marked")  # an earlier version did not mark those that spoke
                self.pilots[tag] = Pilot(tag, str(words["key"]), group, str(words.get("id", "")), has_spoken=has_spoken)
            elif os.path.isdir(group.directory):
                remove_group(group)  # half written, never submitted

    @property
    def live(self) -> list[Pilot]:
        """Those that are, or will be."""
        return [pilot for pilot in self.pilots.values() if pilot.over is None and not pilot.is_given_up]

    def tend(self, wanted: int, boot: float) -> None:
        """Ask for pilots until there are `wanted`, and learn how they stand."""
        while self._graves:
            remove_group(self._graves.pop())
        for told in self._centre.take(boot):
            if isinstance(told, Accepted):
                self._accepted(told, boot)
            elif isinstance(told, Declined):
                self._submitting = ""
                self.trouble = told.words
                if told.tag in self.pilots and not told.is_again:
                    remove_group(self.pilots.pop(told.tag).group)
                self._not_before = boot + (self._settings.retry_delays[-1] if told.is_again else self._settings.pilot_cooldown)
                self._log.warning("no pilot: %s", told.words)
            elif isinstance(told, Silent):
                self.trouble = told.words
            elif isinstance(told, Listed):
                self._listed(told, boot)
            elif isinstance(told, Accounted):
                for pilot in [each for each in self.pilots.values() if each.absent is not None and each.id in told.jobs]:
                    self._see(pilot, told.jobs[pilot.id], boot)
        want = min(wanted, self._settings.pilot_limit)
        if not self._submitting and boot >= self._not_before:
            doubtful = next((pilot for pilot in self.live if not pilot.id), None)
            if doubtful is not None:
                self._look_for(doubtful, boot)
            elif len(self.live) < want:
                self._ask(boot)
        known = [pilot for pilot in self.pilots.values() if pilot.id and pilot.over is None]
        self._centre.tend([pilot.id for pilot in known], [pilot.id for pilot in known if pilot.absent is not None], boot)

    def _ask(self, boot: float) -> None:
        tag = f"hq-pilot-{secrets.token_hex(8)}"
        public, secret = make_curve_pair()
        settings = self._settings
        group = Group(tag, os.path.join(self._base, tag), [])
        try:
            make_private_dir(group.directory)
            told = msgspec.structs.replace(
                self._told, upstreams=self._upstreams, upstream_key=self._public, public=public, secret=secret, slots=settings.pilot_slots,
                heartbeat=5.0, idle=settings.pilot_idle, backend="process", batch=None,
            )  # fmt: skip
            write_secret(group.path("bootstrap.json"), msgspec.json.encode(told).decode())
            write_secret(group.path("job.sh"), self._script(group))
            pilot = Pilot(tag, public, group, asked=boot)
            _note(pilot)
            self._submit(pilot, must_look=False)
        except (OSError, HqError) as error:
            remove_group(group)
            self._failed(str(error), boot)
            return
        self.pilots[tag] = pilot

    def _look_for(self, pilot: Pilot, boot: float) -> None:
        """It may have been accepted, or not."""
        try:
            self._submit(pilot, must_look=True)
        except RefusedError as error:  # backends.yaml has changed
            remove_group(self.pilots.pop(pilot.tag).group)
            self._failed(str(error), boot)

    def _failed(self, words: str, boot: float) -> None:
        self.trouble = words
        self._not_before = boot + self._settings.pilot_cooldown
        self._log.warning("no pilot: %s", words)

    def _submit(self, pilot: Pilot, *, must_look: bool) -> None:
        """With `must_look` only if it was not accepted before. Raises RefusedError."""
        settings, group = self._settings, pilot.group
        demand = Demand(slots=settings.pilot_slots, time=settings.pilot_time - 60)
        submission = Submission(tag=pilot.tag, name=f"hq-pilot-{self._told.host}", script=group.path("job.sh"), directory=group.directory,
                                output=group.path("native.out"), count=1, demand=demand, settings=settings)  # fmt: skip
        self._centre.submit(submission, must_look)
        self._submitting = pilot.tag

    def _script(self, group: Group) -> str:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        start = "from hq.execserver.pilot import main; raise SystemExit(main())"
        words = shlex.join([self._settings.python or sys.executable, "-c", start, group.directory])
        return f"#!/bin/sh\n# made by hq: a pilot, an exec-server of hq inside this job\ncd /\nPYTHONPATH={shlex.quote(root)} PYTHONSAFEPATH=1 exec {words}\n"

    def _accepted(self, told: Accepted, boot: float) -> None:
        self._submitting = ""
        pilot = self.pilots.get(told.tag)
        if pilot is None:
            return
        pilot.id, pilot.asked, self.trouble = told.id, boot, ""
        try:
            _note(pilot)
        except (OSError, HqError) as error:  # whoever comes after us finds it by its tag
            self._log.error("%s: its id %s cannot be written down: %s", told.tag, told.id, error)
        self._log.info("pilot %s is job %s", told.tag, told.id)
        self._centre.hurry()

    def _listed(self, told: Listed, boot: float) -> None:
        for pilot in [each for each in self.pilots.values() if each.id]:
            job = told.jobs.get(pilot.id)
            if job is None and told.asked < pilot.asked:
                continue
            if job is not None:
                pilot.absent = None
                self._see(pilot, job, boot)
            elif pilot.absent is None:
                pilot.absent = boot

    def _see(self, pilot: Pilot, job: NativeJob, boot: float) -> None:
        pilot.word = job.reason or job.word
        if job.state is NativeState.ENDED:
            # one that was pre-empted served well; one that never spoke would fail again
            self._is_over(pilot, boot, is_failure=job.word != "PREEMPTED")

    def _is_over(self, pilot: Pilot, boot: float, *, is_failure: bool) -> None:
        if pilot.over is not None:
            return
        pilot.over = boot
        if is_failure and pilot.began is None and not pilot.is_given_up:
            self._not_before = boot + self._settings.pilot_cooldown
            self.trouble = f"pilot {pilot.id} ended before it came: {pilot.word}"

    def miss(self, pilot: Pilot, boot: float) -> None:
        """It is not heard. If it is not listed either, and has not been for long, it is given up for lost; one that never spoke, soon."""
        patience = self._settings.exit_grace if pilot.began is None else self._settings.unknown_after
        if pilot.absent is not None and boot - pilot.absent > patience:
            pilot.word = "it is neither heard nor listed any more"
            self._is_over(pilot, boot, is_failure=True)

    def note_spoken(self, pilot: Pilot, boot: float) -> None:
        """It is there. It is used once that is written down, for who comes after us must know what may have been given to whom."""
        try:
            write_secret(pilot.group.path("spoken"), "")
        except (OSError, HqError) as error:
            self.trouble = f"{pilot.group.directory} cannot be written: {error}"
            return
        pilot.began, pilot.has_spoken = boot, True

    def remove(self, pilot: Pilot) -> None:
        """It is over, and nobody asks for it any more. Its directory goes with the next turn, when what became of its tasks is in the journal."""
        self.pilots.pop(pilot.tag, None)
        self._graves.append(pilot.group)

    def cancel(self, pilot: Pilot) -> None:
        """Give up one that waits."""
        if pilot.id and not pilot.is_given_up:
            pilot.is_given_up = True
            self._centre.order("cancel", [pilot.id])

    def wake(self) -> float | None:
        """When `tend` has something to do."""
        return 0.0 if self._graves else self._centre.wake(bool(self.pilots))

    def summary(self) -> str:
        """How they stand, for people. It changes only when they do."""
        running = sum(1 for pilot in self.live if pilot.began is not None)
        waiting = [pilot for pilot in self.live if pilot.began is None]
        words = next((pilot.word for pilot in waiting if pilot.word), "")
        asked = f"{len(waiting)} asked for{f' ({words})' if words else ''}"
        return f"{running} running, {asked}, at most {self._settings.pilot_limit}" + (f"; {self.trouble}" if self.trouble else "")

    def pause(self, boot: float) -> float:
        """Seconds until the next one may be asked for."""
        return max(0.0, self._not_before - boot)


def _note(pilot: Pilot) -> None:
    """Write down which job it is. Raises OSError and HqError."""
    write_secret(pilot.group.path("job.json"), json.dumps({"key": pilot.key, "id": pilot.id, "is_marked": True}))
