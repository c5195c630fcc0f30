"""Sizes and times as people write them. Bytes and seconds inside; text only at the door."""

from __future__ import annotations

import re

from hq.errors import InputError

_SIZE = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?\s*(?:([KMGT])i?)?(B?)", re.ASCII | re.IGNORECASE)
_UNIT = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_BARE = re.compile(r"[0-9]{1,30}", re.ASCII)
_UNITS_OF_TIME = re.compile(r"(?:([0-9]{1,30})d)?(?:([0-9]{1,30})h)?(?:([0-9]{1,30})m)?(?:([0-9]{1,30})s)?", re.ASCII)
_CLOCK = re.compile(r"(?:([0-9]{1,30})-)?([0-9]{1,30}):([0-5]?[0-9])(?::([0-5]?[0-9]))?", re.ASCII)

MAX_BYTES = 1 << 60
MAX_SECONDS = 10 * 366 * 86400


def parse_bytes(text: str) -> int:
    """Read a size: `512M`, `2G`, `1.5g`, `100K`; a bare number is megabytes (MiB). Raises InputError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"'{_cut(text)}' is not a size: write 512M, 2G, or a bare number of megabytes")
    # a trailing B without a unit letter means bytes: `4096B`
    unit = _UNIT[found[3].upper()] if found[3] else 1 if found[4] else _UNIT["M"]
    # in whole numbers: a float cannot tell 2**53 + 1 bytes from 2**53
    fraction = found[2] or ""
    size: int = int(found[1] + fraction) * unit // 10 ** len(fraction)
    if not 0 < size <= MAX_BYTES:
        raise InputError(f"the size '{_cut(text)}' is out of range")
    return size


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"


def parse_seconds(text: str) -> float:
    """Read a duration: `90`, `5m`, `1h30m`, `1:30:00`, `2-00:00:00`, `30:00` (minutes:seconds). Raises InputError."""
    text = text.strip()
    if _BARE.fullmatch(text):
        seconds = int(text)
    elif text and (units := _UNITS_OF_TIME.fullmatch(text)):
        days, hours, minutes, rest = (int(group or 0) for group in units.groups())
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    elif clock := _CLOCK.fullmatch(text):
        if clock[4] is None and clock[1] is None:
            seconds = int(clock[2]) * 60 + int(clock[3])
        else:
            seconds = int(clock[1] or 0) * 86400 + int(clock[2]) * 3600 + int(clock[3]) * 60 + int(clock[4] or 0)
    else:
        raise InputError(f"'{_cut(text)}' is not a time: write 90 (seconds), 5m, 1h30m, 1:30:00 or 2-00:00:00")
    if not 0 < seconds <= MAX_SECONDS:
        raise InputError(f"the time '{_cut(text)}' is out of range")
    return float(seconds)


def format_bytes(size: int | None) -> str:
    """A size for people: `1.5G`; `-` if unknown."""
    if size is None:
        return "-"
    for unit, name in ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + name
    return f"{size}B"


def format_seconds(seconds: float | None) -> str:
    """A duration for people: `0.25s`, `12s`, `5:00`, `1:30:00`, `2-00:00:00`; `-` if unknown."""
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.3g}s" if abs(seconds) >= 0.001 else "0s"
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
