"""Moments as people write and read them: `18:00`, `+1h`, `2026-03-01T08:00`, `2h`. Unix time inside; local time at the door."""

from __future__ import annotations

from datetime import datetime, timedelta

from hq.errors import InputError
from hq.model.quantities import parse_seconds


def _time_of_day(text: str) -> tuple[int, int, int] | None:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in parts):
        return None
    hour, minute, second = (*map(int, parts), 0)[:3]
    return (hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


def parse_moment(text: str, now: float, *, is_past: bool = False) -> float:
    """Unix time of a moment. `now` is Unix time.

    `now`, `@1700000000`, an ISO date or date and time, a time of day (the next one; with `is_past` the last one), `+1h` (or
    with `is_past` also `1h`: that long ago). Raises InputError.
    """
    stripped = text.strip()
    today = datetime.fromtimestamp(now)
    try:
        if stripped == "now":
            return now
        if stripped.startswith("@"):
            # whatever no calendar can show raises here
            return datetime.fromtimestamp(int(stripped[1:])).timestamp()
        if stripped.startswith("+") and not is_past:
            return now + parse_seconds(stripped[1:])
        if clock := _time_of_day(stripped):
            moment = today.replace(hour=clock[0], minute=clock[1], second=clock[2], microsecond=0)
            if is_past and moment.timestamp() > now:
                moment -= timedelta(days=1)
            elif not is_past and moment.timestamp() <= now:
                moment += timedelta(days=1)
            return moment.timestamp()
        if stripped in ("today", "tomorrow", "yesterday"):
            days = {"today": 0, "tomorrow": 1, "yesterday": -1}[stripped]
            return (today.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)).timestamp()
        if "-" in stripped and stripped[:4].isdigit():
            return datetime.fromisoformat(stripped).timestamp()
        if is_past:
            return now - parse_seconds(stripped.removeprefix("-"))
    except (ValueError, OverflowError, OSError, InputError):
        pass
    sample = "2h (ago), 18:00, 2026-03-01 or 2026-03-01T08:00" if is_past else "+1h, 18:00, 2026-03-01 or 2026-03-01T08:00"
    raise InputError(f"'{text}' is not a moment: write {sample}")


def format_moment(moment: float | None, now: float) -> str:
    """Local time for people, without the date if it is today's; `-` if there is none."""
    if moment is None:
        return "-"
    local, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    if local.date() == today.date():
        return local.strftime("%H:%M:%S")
    return local.strftime("%m-%d %H:%M" if local.year == today.year else "%Y-%m-%d")
