"""Waiting for a condition in tests, in small steps and never longer than needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 30, what: str = "") -> T:
    """Call `condition` until its value is true, and return that value. Raises AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what or getattr(condition, '__name__', condition)} (last: {value!r})")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
