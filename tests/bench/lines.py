"""What a row of the bench yields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `goal`: what it is to reach, in words; `is_met`: whether it did, None where that cannot be said."""

    row: str
    what: str
    figure: float
    unit: str
    goal: str = ""
    is_met: bool | None = None
