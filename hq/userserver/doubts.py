"""Orders of attempts that their exec-server may have already: for them nobody but the exec-server speaks.

A hq-server that died before it recorded how an attempt began or ended orders it again when it is back. Its exec-server may be running
it, or have its end in its spool. So while the exec-server cannot be asked, such an attempt is neither refused because it has ended
nor given back as one that never started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hq.model.ids import AttemptKey

_NOT_YET = 1 << 63


class Doubts:
    """What the exec-servers have told and hq-server has not recorded, and refusals that wait for a roll."""

    def __init__(self) -> None:
        self._told: dict[str, dict[AttemptKey, int]] = {}  # host → attempt → sequence of its last report
        self._waiting: dict[str, dict[AttemptKey, str]] = {}
        self._sent: dict[str, set[AttemptKey]] = {}

    def sent_before(self, host: str, keys: Iterable[AttemptKey]) -> None:
        """These orders came before, so that the exec-server on the host may have them."""
        self._sent.setdefault(host, set()).update(keys)

    def may_be_there(self, host: str, key: AttemptKey) -> bool:
        """Whether only the roll of the host can tell if it has the attempt."""
        return key in self._sent.get(host, ())

    def reported(self, host: str, sequence: int, keys: Iterable[AttemptKey]) -> None:
        """Reports of these attempts have passed by."""
        self._told.setdefault(host, {}).update(dict.fromkeys(keys, sequence))

    def recorded(self, host: str, sequence: int) -> None:
        """hq-server has recorded all reports of a host up to a sequence."""
        told = self._told.get(host)
        if told:
            self._told[host] = {key: each for key, each in told.items() if each > sequence}

    def sift(self, host: str, refused: Mapping[AttemptKey, str], *, is_ready: bool) -> dict[AttemptKey, str]:
        """Those that are refused at once. While the host's roll has not been heard (not `is_ready`) none is."""
        told = self._told.get(host, {})
        doubtful = {key: why for key, why in refused.items() if key not in told}
        if not is_ready:
            self._waiting.setdefault(host, {}).update(doubtful)
            return {}
        return doubtful

    def rolled(self, host: str, keys: Iterable[AttemptKey]) -> dict[AttemptKey, str]:
        """The host has called its roll: those that waited for it and are refused now."""
        waiting = self._waiting.pop(host, {})
        self._sent.pop(host, None)
        there = set(keys)
        # what it has will be reported, or stands in its spool: the sequence is not known yet
        told = self._told.get(host, {})
        self._told[host] = {key: told.get(key, _NOT_YET) for key in there}
        return {key: why for key, why in waiting.items() if key not in there}

    def is_waiting(self, host: str) -> bool:
        """Whether a roll of this host would settle something."""
        return host in self._waiting
