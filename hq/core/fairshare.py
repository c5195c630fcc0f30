"""Whose turn it is: among users, the one who has least goes first.

A user's *score* is the slots that he holds now, plus those that he held on average of late: an average in which a moment counts half as
much as one a half-life later; plus the same with a memory of minutes, by which those who wait together get the same, be their tasks short
or long, before the long memory could tell them apart. Whoever begins to wait stands at the head of the line at best and in the middle of it
at worst: the minutes count what users had while they waited for the same slots, not what one of them had when nobody else wanted it.
Each slot that is given raises the score, so that free slots go round, and whoever used much while others did not waits for them, but never
for ever: what he used fades, what they hold counts. Charged are slots by hq-server's own clock, nothing that an exec-server reports. The
order of one user's own jobs is not the business of this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

#: The setting of the instance that keeps the averages over a restart, and how often it is written (seconds).
AVERAGES = "fair_share_averages"
SAVED_EVERY = 60.0
#: The half-life of the short memory (seconds): some rounds of tasks of minutes.
SHORT = 600.0
#: Averages below this are forgotten: nothing follows from them.
_NOTHING = 1e-9


@dataclass(slots=True)
class _Account:
    slots: int = 0
    average: float = 0.0  # at `at`
    recent: float = 0.0  # the same with the short memory
    at: float = 0.0


class FairShare:
    """What each user holds and held. Moments are Unix time, `half_life` seconds."""

    def __init__(self, half_life: float = 86400.0) -> None:
        self.half_life = half_life
        self._accounts: dict[str, _Account] = {}
        self._line: frozenset[str] = frozenset()

    def took(self, user: str, slots: int, now: float) -> None:
        """Slots were given to a user."""
        self._settled(user, now).slots += slots

    def gave(self, user: str, slots: int, now: float) -> None:
        """Slots came back."""
        account = self._settled(user, now)
        account.slots -= slots
        assert account.slots >= 0, f"{user} gave back more slots than he had"

    def held(self, user: str) -> int:
        """Slots that a user holds now."""
        account = self._accounts.get(user)
        return 0 if account is None else account.slots

    def average(self, user: str, now: float) -> float:
        """Slots that he held on average of late."""
        account = self._accounts.get(user)
        return 0.0 if account is None else self._average(account, now)

    def score(self, user: str, now: float) -> float:
        """The lower, the sooner it is his turn."""
        account = self._accounts.get(user)
        return 0.0 if account is None else account.slots + self._average(account, now) + _faded(account, account.recent, SHORT, now)

    def _recent(self, user: str, now: float) -> float:
        account = self._accounts.get(user)
        return 0.0 if account is None else _faded(account, account.recent, SHORT, now)

    def line_up(self, users: Iterable[str], now: float) -> None:
        """These wait now, all others do not. The short memory of those who did not wait before is moved to between the least and the mean of those
        who did."""
        before, self._line = self._line, frozenset(users)
        new = self._line - before
        if not new:
            return
        others = [self._recent(user, now) for user in self._line & before] or [0.0]
        least, mean = min(others), sum(others) / len(others)
        for user in new:
            account = self._settled(user, now)
            account.recent = max(least, min(account.recent, mean))

    def set_half_life(self, seconds: float, now: float) -> None:
        """From now on an average fades so fast."""
        for user in self._accounts:
            self._settled(user, now)
        self.half_life = seconds

    def saved(self, now: float) -> str:
        """The averages as text, for `restore`; what is held follows from the tasks."""
        averages = {user: average for user, account in self._accounts.items() if (average := self._average(account, now)) > _NOTHING}
        return json.dumps({"at": now, "averages": averages})

    def restore(self, text: str) -> None:
        """Take over what was saved. A text that cannot be read counts as none: then everybody begins anew."""
        try:
            saved = json.loads(text)
            at, averages = float(saved["at"]), {str(user): float(average) for user, average in saved["averages"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        for user, average in averages.items():
            if 0 < average < math.inf:
                self._accounts[user] = _Account(0, average, at=at)

    def _settled(self, user: str, now: float) -> _Account:
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = _Account(at=now)
        account.average, account.recent = self._average(account, now), _faded(account, account.recent, SHORT, now)
        account.at = max(account.at, now)
        return account

    def _average(self, account: _Account, now: float) -> float:
        return _faded(account, account.average, self.half_life, now)


def _faded(account: _Account, average: float, half_life: float, now: float) -> float:
    """What an average has become since the account was settled, with as many slots as are held."""
    kept: float = math.exp2(-max(0.0, now - account.at) / half_life)
    return account.slots + (average - account.slots) * kept
