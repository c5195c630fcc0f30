"""What a daemon does every so often, by name, so that an administrator can list the loops and change their intervals."""

from __future__ import annotations

from difflib import get_close_matches

from hq.errors import InputError


class Timers:
    """Named intervals on the clock that counts since boot. It never calls anything: the daemon asks what is due."""

    def __init__(self) -> None:
        self._intervals: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def add(self, name: str, interval: float, boot: float) -> None:
        """A new timer, every `interval` seconds, due for the first time at `boot`."""
        assert interval > 0 and name not in self._intervals
        self._intervals[name] = interval
        self._due[name] = boot

    def due(self, boot: float) -> list[str]:
        """The timers whose time has come, in the order of their adding. Each is due again one interval after `boot`: missed turns are not made up."""
        names = [name for name, when in self._due.items() if when <= boot]
        for name in names:
            self._due[name] = boot + self._intervals[name]
        return names

    def next(self) -> float | None:
        """When the next one is due; None if there is no timer."""
        return min(self._due.values(), default=None)

    def intervals(self) -> dict[str, float]:
        """Every timer and its interval in seconds."""
        return dict(self._intervals)

    def set_interval(self, name: str, seconds: float) -> None:
        """Change an interval; it counts from the timer's last turn. Raises InputError for an unknown name or an interval outside 0.01 s to a day."""
        if name not in self._intervals:
            near = get_close_matches(name, self._intervals, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(self._intervals) or 'none'}"
            raise InputError(f"there is no loop '{name}': {hint}")
        if not 0.01 <= seconds <= 86400:
            raise InputError(f"an interval of {seconds:g} seconds is out of range: 0.01 to 86400")
        self._due[name] += seconds - self._intervals[name]
        self._intervals[name] = seconds
