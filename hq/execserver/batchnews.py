"""What backends tell, as events for the core; and what of a batch system's news stands in the journal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from hq.core.runner_events import Event, RunHalted, RunNoted, RunStarted, RunWaits, StartFailed
from hq.execserver.backends.base import Backend, Begun, Halted, News, NotBegun, Waits
from hq.execserver.bootstrap import Bootstrap
from hq.kernel.clock import Now
from hq.kernel.places import hq_home
from hq.model.batch import BATCH_BACKENDS
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import StartOrder

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer


class NewsBackend(Backend, Protocol):
    """A backend whose runs begin when somebody else lets them."""

    def take_news(self) -> list[News]:
        """What became known of runs since the last time, apart from their ends."""
        ...

    def recall(self, key: AttemptKey) -> None:
        """Take back what waits there; what has begun goes on."""
        ...

    def facts(self) -> dict[str, str]:
        """How it stands, for people."""
        ...

    def hold(self, key: AttemptKey, is_held: bool) -> None:
        """Keep a run from beginning, or no longer. What was not given to the batch system yet is given back; what has begun goes on."""
        ...

    def wake(self) -> float | None:
        """When `poll` has something to do even if nothing comes. CLOCK_BOOTTIME."""
        ...


def signed_order(server: ExecServer, key: AttemptKey) -> tuple[StartOrder, SignedSpec] | None:
    """What a pilot needs to run an attempt."""
    run, signed = server.runner.runs.get(key), server.specs.get(key.job)
    return (run.order, signed) if run is not None and signed is not None else None


def sealed_blob(server: ExecServer, digest: str) -> bytes | None:
    """A sealed environment or script, if it is here."""
    try:
        return server.launcher.blobs.get(digest) if server.launcher.blobs.has(digest) else None
    except OSError:
        return None


def scripts_dir(bootstrap: Bootstrap, run_dir: str) -> str:
    """Where scripts of jobs are written: where whatever runs them can read them."""
    if bootstrap.backend in BATCH_BACKENDS:
        return os.path.join(bootstrap.home or hq_home(), bootstrap.instance, "scripts", bootstrap.host)
    return os.path.join(run_dir, "scripts")


def batch_events(server: ExecServer, batch: NewsBackend, now: Now) -> list[Event]:
    """The news since the last time."""
    events: list[Event] = []
    for news in batch.take_news():
        key = news.key
        if isinstance(news, Waits):
            events.append(RunWaits(key, news.reason, news.native))
        elif isinstance(news, Halted):
            events.append(RunHalted(key, news.is_suspended, news.reason))
        elif isinstance(news, Begun):
            tag = server.tags.get(key, ("", 0, 0, ()))[0]
            server.tags[key] = (tag, news.pid or 1, 0, ())
            server.journal.note(t="started", key=key, pid=news.pid or 1, at=news.at)
            if news.note:
                events.append(RunNoted(key, news.note))
            events.append(RunStarted(key, news.pid, news.at, news.native))
        elif isinstance(news, NotBegun):
            server.tags.pop(key, None)
            server.journal.note(t="unstarted", key=key)
            events.append(StartFailed(key, news.reason, now.wall, is_final=not news.is_again, is_refused=news.is_refused))
    return events
