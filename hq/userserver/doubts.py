"""Orders of attempts that their exec-server may have already: for them nobody but the exec-server speaks.

A hq-server that died before it recorded how an attempt began or ended orders it again when it is back. Its exec-server may be running
it, or have its end in its spool. So while the exec-server cannot be asked, such an attempt is neither refused because it has ended
nor given back as one that never started.

Its host may also have lost its memory: the disk with the journal went with a reboot. Then ends that passed by here are told by us, and of
attempts that it may have had before nobody can say whether they ran.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping

from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.userserver.hosts import HostMemory

_NOT_YET = 1 << 63


class Doubts:
    """What the exec-servers have told and hq-server has not recorded, and refusals that wait for a roll."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: dict[str, dict[AttemptKey, tuple[int, RunReport | None]]] = {}  # host → attempt → its last report and the sequence of that
        self._waiting: dict[str, dict[AttemptKey, str]] = {}
        self._sent: dict[str, set[AttemptKey]] = {}
        self._since: dict[str, set[AttemptKey]] = {}  # of hosts that lost their memory: attempts that came after that
        self._lost: dict[str, tuple[str, int | None]] = {}  # of hosts that lost it lately: the new one, and the first sequence of that

    def sent_before(self, host: str, keys: Iterable[AttemptKey]) -> None:
        """These orders came before, so that the exec-server on the host may have them."""
        self._sent.setdefault(host, set()).update(keys)

    def may_be_there(self, host: str, key: AttemptKey) -> bool:
        """Whether only the roll of the host can tell if it has the attempt."""
        return key in self._sent.get(host, ())

    def reported(self, host: str, sequence: int, reports: Iterable[RunReport]) -> None:
        """These reports have passed by."""
        memory, first = self._lost.get(host, ("", 0))
        if first is None:
            self._lost[host] = (memory, sequence)
        self._told.setdefault(host, {}).update((report.key, (sequence, report)) for report in reports)

    def recorded(self, host: str, sequence: int) -> str:
        """hq-server has recorded all reports of a host up to a sequence. Returns the name of a new memory if it has ordered by now all that
        it believed there."""
        told = self._told.get(host)
        if told:
            self._told[host] = {key: each for key, each in told.items() if each[0] > sequence}
        memory, first = self._lost.get(host, ("", None))
        if first is None or sequence < first:
            return ""
        del self._lost[host]
        return memory

    def sift(self, host: str, refused: Mapping[AttemptKey, str], *, is_ready: bool) -> dict[AttemptKey, str]:
        """Those that are refused at once. While the host's roll has not been heard (not `is_ready`) none is."""
        told = self._told.get(host, {})
        doubtful = {key: why for key, why in refused.items() if key not in told}
        if not is_ready:
            self._waiting.setdefault(host, {}).update(doubtful)
            return {}
        return doubtful

    def forgotten_ends(self, host: str, keys: Iterable[AttemptKey]) -> tuple[RunReport, ...]:
        """Ends that the host has told, that are not recorded, and that its roll does not name any more. To be asked before `rolled`."""
        there = set(keys)
        told = self._told.get(host, {})
        return tuple(report for key, (_, report) in told.items() if key not in there and report is not None and report.kind is RunKind.ENDED)

    def met(self, host: str, memory: str, known: HostMemory) -> None:
        """The exec-server on a host said hello, with the name of its memory."""
        if known.is_forgetful(host, memory):
            self._log.warning("the exec-server on %s has forgotten what it was told before", host)
            self.lost_memory(host, memory)

    def lost_memory(self, host: str, memory: str) -> None:
        """The host does not know what it was told before this moment; `memory` names what it knows from now on."""
        if host not in self._lost or self._lost[host][0] != memory:
            self._lost[host] = (memory, None)
            self._since[host] = set()

    def is_forgotten(self, host: str, key: AttemptKey) -> bool:
        """Whether the attempt came to the host, if it did, before that lost its memory."""
        return host in self._since and key not in self._since[host]

    def is_doubtful(self, host: str, key: AttemptKey, there: Container[AttemptKey]) -> bool:
        """Whether nobody knows any more if an attempt that waits for the host, which has those that are `there`, has begun before."""
        return key not in there and self.may_be_there(host, key) and self.is_forgotten(host, key)

    def ordered(self, host: str, keys: Iterable[AttemptKey]) -> None:
        """These are there, or ordered for the first time."""
        if host in self._since:
            self._since[host].update(keys)

    def rolled(self, host: str, keys: Iterable[AttemptKey]) -> dict[AttemptKey, str]:
        """The host has called its roll: those that waited for it and are refused now."""
        waiting = self._waiting.pop(host, {})
        self._sent.pop(host, None)
        there = set(keys)
        # what it has will be reported, or stands in its spool: the sequence is not known yet
        told = self._told.get(host, {})
        self._told[host] = {key: told.get(key, (_NOT_YET, None)) for key in there}
        return {key: why for key, why in waiting.items() if key not in there}

    def is_waiting(self, host: str) -> bool:
        """Whether a roll of this host would settle something."""
        return host in self._waiting


def lost_here(host: str, keys: Iterable[AttemptKey], at: float) -> tuple[RunReport, ...]:
    """Reports of attempts that may have begun on a host before it lost its memory."""
    reason = f"{host} has forgotten what it was told (was it rebooted?): whether it ran there is not known"
    return tuple(
        RunReport(job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.ENDED, at=at, outcome=Outcome.LOST, reason=reason) for key in keys
    )
