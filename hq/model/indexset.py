"""Index sets of array jobs: `1-100:2,7` as ranges, never as a million numbers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from math import gcd

from hq.errors import InputError

MAX_INDEX = 2**31 - 1
MAX_TASKS = 10_000_000

#: Ranges, single indices included, of one array: each is kept, and read again wherever the array is.
MAX_RANGES = 20_000
#: Pairs of ranges of which one begins within the other: each has to be looked at.
MAX_PAIRS = 100_000
#: Where an index stands is found among so many ranges by looking at each.
_FEW = 8

_PART = re.compile(r"([0-9_]{1,14})(?:-([0-9_]{1,14})(?::([0-9_]{1,14}))?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class IndexSet:
    """Distinct array indices in the order in which they were asked for.

    `ranges` holds (first, step, count) with step ≥ 1, count ≥ 1; no index stands in two of them.
    """

    ranges: tuple[tuple[int, int, int], ...]
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)
    # of many ranges: their numbers by rising first index, those indices, and the largest index up to each
    _order: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _firsts: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _reach: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = sorted(range(len(self.ranges)), key=lambda which: self.ranges[which][0]) if len(self.ranges) > _FEW else []
        object.__setattr__(self, "_ends", tuple(accumulate(count for _, _, count in self.ranges)))
        object.__setattr__(self, "_order", tuple(order))
        object.__setattr__(self, "_firsts", tuple(self.ranges[which][0] for which in order))
        object.__setattr__(self, "_reach", tuple(accumulate((_last(self.ranges[which]) for which in order), max)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self._which(index) is not None

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
        which = self._which(index)
        if which is None:
            raise ValueError(f"{index} is not in {self}")
        first, step, count = self.ranges[which]
        return self._ends[which] - count + (index - first) // step

    def _which(self, index: int) -> int | None:
        """The number of the range that holds an index."""
        if not self._order:
            return next((which for which, each in enumerate(self.ranges) if _holds(each, index)), None)
        at = bisect_right(self._firsts, index) - 1
        while at >= 0 and self._reach[at] >= index:
            if _holds(self.ranges[self._order[at]], index):
                return self._order[at]
            at -= 1
        return None

    def __str__(self) -> str:
        return ",".join(
            str(first) if count == 1 else f"{first}-{first + step * (count - 1)}" + (f":{step}" if step > 1 else "")
            for first, step, count in self.ranges
        )


def _last(each: tuple[int, int, int]) -> int:
    return each[0] + each[1] * (each[2] - 1)


def _holds(each: tuple[int, int, int], index: int) -> bool:
    first, step, count = each
    offset, rest = divmod(index - first, step)
    return rest == 0 and 0 <= offset < count


def _overlaps(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    """Whether two ranges share an index."""
    low, high = max(a[0], b[0]), min(_last(a), _last(b))
    common = gcd(a[1], b[1])
    if low > high or (b[0] - a[0]) % common:
        return False
    # the smallest number from a's first on that is in both, were they without end; it comes again after each common multiple
    every = a[1] // common * b[1]
    found = a[0] + a[1] * ((b[0] - a[0]) // common * pow(a[1] // common, -1, b[1] // common) % (b[1] // common))
    return found + -(-(low - found) // every) * every <= high


def _repeated(ranges: Sequence[tuple[int, int, int]]) -> int | None:
    """The number of a range that repeats an index of one before it. Raises InputError where that takes too long to find out."""
    open_ones: list[tuple[int, int]] = []  # (last index, number) of those that have begun, by rising index
    pairs = 0
    for number in sorted(range(len(ranges)), key=lambda number: ranges[number][0]):
        while open_ones and open_ones[0][0] < ranges[number][0]:
            heappop(open_ones)
        pairs += len(open_ones)
        if pairs > MAX_PAIRS:
            raise InputError("too many of its ranges lie within others: submit it as several arrays")
        for _, other in open_ones:
            if _overlaps(ranges[number], ranges[other]):
                return max(number, other)
        heappush(open_ones, (_last(ranges[number]), number))
    return None


def parse_array(text: str) -> tuple[IndexSet, int | None]:
    """Read an array option such as `1-100:2,7%10`: the index set, and the throttle (tasks at once) or None.

    Underscores may group digits. Raises InputError for anything empty, repeated, falling or too large.
    """
    name = f"array '{text}'" if len(text) <= 100 else f"array '{text[:80]}…'"
    body, percent, limit = text.strip().partition("%")
    throttle = None
    if percent:
        if not limit.isascii() or not limit.isdigit() or int(limit) < 1:
            raise InputError(f"{name}: after % stands how many tasks may run at once, a number from 1")
        throttle = int(limit)
    ranges: list[tuple[int, int, int]] = []
    total = 0
    parts = body.split(",")
    if len(parts) > MAX_RANGES:
        raise InputError(f"{name}: {len(parts):,} single indices and ranges; at most {MAX_RANGES:,} are allowed in one array")
    for part in parts:
        found = _PART.fullmatch(part.strip())
        digits = [group.replace("_", "") if group is not None else None for group in found.groups()] if found else []
        if not digits or any(group == "" for group in digits):
            raise InputError(f"{name}: '{part}' is not an index or a range such as 1-100 or 1-100:2")
        first = int(digits[0] or 0)
        last = first if digits[1] is None else int(digits[1])
        step = 1 if digits[2] is None else int(digits[2])
        if last < first or step < 1:
            raise InputError(f"{name}: the range '{part}' is empty")
        if last > MAX_INDEX:
            raise InputError(f"{name}: the index {last} is larger than {MAX_INDEX}")
        piece = (first, step, (last - first) // step + 1) if last > first else (first, 1, 1)
        ranges.append(piece)
        total += piece[2]
        if total > MAX_TASKS:
            raise InputError(f"{name}: {total:,} tasks; at most {MAX_TASKS:,} are allowed in one job")
    try:
        repeated = _repeated(ranges)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if repeated is not None:
        raise InputError(f"{name}: '{parts[repeated].strip()}' repeats an index")
    return IndexSet(tuple(ranges)), throttle
