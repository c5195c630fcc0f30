"""What it means for the core that a backend says a run has ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hq.core.runner_events import Event, StartFailed
from hq.execserver.backends.base import Ended
from hq.execserver.batchnews import run_ended
from hq.kernel.clock import Now

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer


def ended_events(server: ExecServer, ended: Iterable[Ended], now: Now) -> list[Event]:
    """The end of each; one whose process was never made has not begun, and may."""
    events: list[Event] = []
    for each in ended:
        if each.is_never:
            server.journal.note(t="unstarted", key=each.key)
            server.tags.pop(each.key, None)
            events.append(StartFailed(each.key, each.reason, now.wall))
        else:
            events += [*server.outputs.last_look(each.key), run_ended(each, now)]
    return events
