"""One deadline for a call of many steps, and a way to bound a step that knows no timeout of its own.

Not for the daemons' timers: those live on the loop's clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from hq.errors import UnavailableError
from hq.userserver.transports.base import Cancel

_T = TypeVar("_T")

#: How long a wait may go on before it looks whether it was cancelled. Seconds.
STEP = 0.2


class Deadline:
    """So many seconds from now for all that follows; or until `cancel` is set."""

    def __init__(self, seconds: float, cancel: Cancel | None = None) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancel = cancel

    def within(self, seconds: float) -> Deadline:
        """A deadline for a part of the way: no later than this one."""
        return Deadline(max(0.0, min(seconds, self._end - time.monotonic())), self._cancel)

    def remaining(self, what: str) -> float:
        """Seconds left, always more than 0. Raises UnavailableError, which says `what` was not done, when the time is over or the call was cancelled."""
        if self._cancel is not None and self._cancel.is_set():
            raise UnavailableError(f"{what}: cancelled")
        left = self._end - time.monotonic()
        if left <= 0:
            raise UnavailableError(f"{what}: no answer within {self.seconds:.0f} s")
        return left

    def step(self, what: str) -> float:
        """As `remaining`, but short enough to notice a cancel soon."""
        return min(STEP, self.remaining(what))


def bounded(function: Callable[[], _T], deadline: Deadline, what: str, discard: Callable[[_T], None] | None = None) -> _T:
    """The value of `function`, called in a thread of its own, by the deadline.

    For calls that take no timeout (name resolution, an agent that waits for a finger). A call that ends too late is left behind; its
    value goes to `discard`. Raises what `function` raises, or UnavailableError.
    """
    lock = threading.Lock()
    ended = threading.Event()
    values: list[_T] = []
    errors: list[BaseException] = []
    is_abandoned = False

    def work() -> None:
        value: list[_T] = []
        try:
            value.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)
        with lock:
            if not is_abandoned:
                values.extend(value)
                ended.set()
                return
        if value and discard is not None:
            discard(value[0])

    threading.Thread(target=work, name="hq-bounded", daemon=True).start()
    try:
        while not ended.wait(deadline.step(what)):
            pass
    except UnavailableError:
        with lock:
            if not ended.is_set():
                is_abandoned = True
                raise
    if errors:
        raise errors[0]
    return values[0]
