"""Index sets of array jobs: `1-100:2,7` as ranges, never as a million numbers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from hq.errors import InputError

MAX_INDEX = 2**31 - 1
MAX_TASKS = 10_000_000

_PART = re.compile(r"([0-9_]{1,14})(?:-([0-9_]{1,14})(?::([0-9_]{1,14}))?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class IndexSet:
    """Distinct array indices in the order in which they were asked for.

    `ranges` holds (first, step, count) with step ≥ 1, count ≥ 1; no index stands in two of them.
    """

    ranges: tuple[tuple[int, int, int], ...]
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends, total = [], 0
        for _, _, count in self.ranges:
            total += count
            ends.append(total)
        object.__setattr__(self, "_ends", tuple(ends))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and any(
            first <= index <= first + step * (count - 1) and (index - first) % step == 0 for first, step, count in self.ranges
        )

    def __iter__(self) -> Iterator[int]:
        for first, step, count in self.ranges:
            yield from range(first, first + step * count, step)

    def at(self, position: int) -> int:
        """The index at `position`, counted from 0. Raises IndexError beyond the end."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        which = bisect_right(self._ends, position)
        first, step, count = self.ranges[which]
        return first + step * (position - (self._ends[which] - count))

    def position(self, index: int) -> int:
        """Where `index` stands, counted from 0: the inverse of `at`. Raises ValueError if it is not in the set."""
        for (first, step, count), end in zip(self.ranges, self._ends, strict=True):
            offset, rest = divmod(index - first, step)
            if rest == 0 and 0 <= offset < count:
                return end - count + offset
        raise ValueError(f"{index} is not in {self}")

    def __str__(self) -> str:
        return ",".join(
            str(first) if count == 1 else f"{first}-{first + step * (count - 1)}" + (f":{step}" if step > 1 else "")
            for first, step, count in self.ranges
        )


def _overlaps(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    """Whether two ranges share an index."""
    if a[2] > b[2]:
        a, b = b, a
    low, high = max(a[0], b[0]), min(a[0] + a[1] * (a[2] - 1), b[0] + b[1] * (b[2] - 1))
    if low > high:
        return False
    if a[1] == 1 and b[1] == 1:
        return True
    first = a[0] + -(-(low - a[0]) // a[1]) * a[1]
    # the residues repeat after b's step, so that many elements of the smaller range decide it
    return any((index - b[0]) % b[1] == 0 for index in range(first, high + 1, a[1])[: b[1]])


def parse_array(text: str) -> tuple[IndexSet, int | None]:
    """Read an array option such as `1-100:2,7%10`: the index set, and the throttle (tasks at once) or None.

    Underscores may group digits. Raises InputError for anything empty, repeated, falling or too large.
    """
    body, percent, limit = text.strip().partition("%")
    throttle = None
    if percent:
        if not limit.isascii() or not limit.isdigit() or int(limit) < 1:
            raise InputError(f"array '{text}': after % stands how many tasks may run at once, a number from 1")
        throttle = int(limit)
    ranges: list[tuple[int, int, int]] = []
    total = 0
    for part in body.split(","):
        found = _PART.fullmatch(part.strip())
        digits = [group.replace("_", "") if group is not None else None for group in found.groups()] if found else []
        if not digits or any(group == "" for group in digits):
            raise InputError(f"array '{text}': '{part}' is not an index or a range such as 1-100 or 1-100:2")
        first = int(digits[0] or 0)
        last = first if digits[1] is None else int(digits[1])
        step = 1 if digits[2] is None else int(digits[2])
        if last < first or step < 1:
            raise InputError(f"array '{text}': the range '{part}' is empty")
        if last > MAX_INDEX:
            raise InputError(f"array '{text}': the index {last} is larger than {MAX_INDEX}")
        piece = (first, step, (last - first) // step + 1) if last > first else (first, 1, 1)
        if any(_overlaps(piece, other) for other in ranges):
            raise InputError(f"array '{text}': '{part}' repeats an index")
        ranges.append(piece)
        total += piece[2]
        if total > MAX_TASKS:
            raise InputError(f"array '{text}': {total:,} tasks; at most {MAX_TASKS:,} are allowed in one job")
    return IndexSet(tuple(ranges)), throttle
