"""What it means for the core that a backend says a run has ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hq.core.runner_events import Event, RunEnded, StartFailed
from hq.execserver.backends.base import Ended
from hq.kernel.clock import Now
from hq.model.ids import AttemptKey

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
            heir, made = server.relay.followed(each.key) or (None, None)
            events += [*server.outputs.last_look(each.key), run_ended(each, now, heir)]
            if made is not None:
                events.append(made)
    return events


def run_ended(each: Ended, now: Now, heir: AttemptKey | None = None) -> RunEnded:
    """The end of a run. `heir`: what follows it already."""
    return RunEnded(key=each.key, at=now.wall if each.at is None else each.at, exit_code=each.exit_code, signal=each.signal, max_rss=each.max_rss, cpu=each.cpu,
                    reason=each.reason, has_leftovers=each.has_leftovers, is_memory=each.is_memory, cause=each.cause, heir=heir)  # fmt: skip
