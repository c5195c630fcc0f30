"""How a user-server's exec-servers stand, host by host: when to start one, when to try again, when one is silent.

Pure: moments are CLOCK_BOOTTIME in seconds and come in as arguments, jitter comes from a seed. What starts an exec-server, and how,
is not known here. `agent_orders` keeps what waits for a link, `agent_upstream` the link to hq-server.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hq.model.states import LinkState

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
SILENT_BEATS = 3.0


def pause_after(failures: int, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Seconds to wait after so many failures in a row: doubling from `first` up to `longest`."""
    assert failures >= 1
    return min(longest, first * 2.0 ** min(failures - 1, 30))


class LinkNews(NamedTuple):
    """A link that changed, to be told to hq-server."""

    host: str
    state: LinkState
    reason: str


@dataclass(slots=True)
class Link:
    """One exec-server, seen from here. `try_at`: not started before. `hello_by`: started, and must have said hello by then. `note`: what
    its last start had to say, which may be why it does not get through."""

    state: LinkState = LinkState.UNKNOWN
    reason: str = ""
    note: str = ""
    is_wanted: bool = False
    is_dialling: bool = False
    failures: int = 0
    tried: float = 0.0
    try_at: float = 0.0
    hello_by: float | None = None
    heard: float = 0.0


class Links:
    """All exec-servers of one user.

    A failed start waits 5 s, 10 s, … 10 min (a quarter more or less by chance) and stays FAILED in between and while it is tried
    again, so that hq-server places nothing there before it worked. A silent one is SUSPECT, and is started again (which finds the
    one that still runs) without ever being called FAILED: runs may be there.
    """

    def __init__(self, seed: int, *, heartbeat: float, at_once: int = 8, hello_patience: float = 30.0, spread: float = 0.2) -> None:
        self.heartbeat = heartbeat
        self._random = random.Random(seed)
        self._at_once = at_once
        self._hello_patience = hello_patience
        self._spread = spread
        self._links: dict[str, Link] = {}
        self._news: dict[str, LinkNews] = {}
        self._dialling = 0
        self._wake = float("inf")

    def __iter__(self) -> Iterator[tuple[str, Link]]:
        return iter(self._links.items())

    def of(self, host: str) -> Link:
        """The link to a host; one that was never asked for is UNKNOWN."""
        return self._links.get(host) or Link()

    def is_alive(self, host: str) -> bool:
        """Whether the exec-server on `host` is heard."""
        link = self._links.get(host)
        return link is not None and link.state is LinkState.ALIVE

    def want(self, host: str, now: float, *, is_near: bool = False) -> None:
        """Somebody needs the exec-server on `host`. `is_near`: no login is needed, so nothing is spread in time."""
        link = self._links.setdefault(host, Link())
        if link.is_wanted:
            return
        link.is_wanted = True
        if link.state in (LinkState.UNKNOWN, LinkState.STARTING):
            link.try_at = max(link.try_at, now if is_near else now + self._random.uniform(0.0, self._spread))
            self._change(host, link, LinkState.STARTING, "")
        self._wake = min(self._wake, link.try_at)

    def nudge(self, now: float, *, host: str | None = None, since: float = 60.0) -> None:
        """The user is there and may have mended something: what failed more than `since` seconds ago is tried again now."""
        for name, link in self._links.items():
            if host in (None, name) and link.is_wanted and not link.is_dialling and link.failures and now - link.tried >= since:
                link.try_at = now
                self._wake = min(self._wake, now)

    def due(self, now: float) -> list[str]:
        """Hosts whose exec-server is to be started now, a few at a time; notes silent and late ones. Call it at `wake()` or later."""
        if now < self._wake:
            return []
        starts = []
        self._wake = float("inf")
        for host, link in self._links.items():
            if link.state is LinkState.ALIVE:
                if now - link.heard >= SILENT_BEATS * self.heartbeat:
                    link.is_wanted, link.try_at = True, now
                    self._change(host, link, LinkState.SUSPECT, f"the exec-server on {host} has been silent for {now - link.heard:.0f} s")
                else:
                    self._wake = min(self._wake, link.heard + SILENT_BEATS * self.heartbeat)
                    continue
            if link.hello_by is not None and now >= link.hello_by:
                self.failed(
                    host,
                    f"the exec-server on {host} was started, but did not reach this user-server within {self._hello_patience:.0f} s: "
                    f"is there a way back from that host? (hq-client checkhost tells){f'; {link.note}' if link.note else ''}",
                    now,
                )
            if link.hello_by is not None:
                self._wake = min(self._wake, link.hello_by)
            elif link.is_wanted and not link.is_dialling:
                if now < link.try_at:
                    self._wake = min(self._wake, link.try_at)
                elif self._dialling < self._at_once:
                    link.is_dialling, link.tried = True, now
                    self._dialling += 1
                    starts.append(host)
                # those beyond the limit wait for the end of a start, which wakes us
        return starts

    def wake(self) -> float | None:
        """When `due` has something to do at the earliest; None: nothing is foreseen."""
        return None if self._wake == float("inf") else self._wake

    def started(self, host: str, now: float, *, note: str = "") -> None:
        """The exec-server on `host` was started (or found); its hello is awaited unless it came already."""
        link = self._settle(host)
        if link.state is not LinkState.ALIVE:
            link.hello_by = now + self._hello_patience
            link.note = note
        self._wake = min(self._wake, now)

    def failed(self, host: str, reason: str, now: float) -> None:
        """The exec-server on `host` could not be started, for this reason (verbatim)."""
        link = self._settle(host)
        self._wake = min(self._wake, now)
        if link.state is LinkState.ALIVE:
            return
        link.hello_by = None
        link.failures += 1
        link.try_at = now + pause_after(link.failures) * self._random.uniform(0.75, 1.25)
        self._change(host, link, LinkState.SUSPECT if link.state is LinkState.SUSPECT else LinkState.FAILED, reason)

    def came(self, host: str, now: float, note: str = "") -> None:
        """The exec-server on `host` said hello."""
        link = self._links.setdefault(host, Link())
        link.is_wanted, link.failures, link.hello_by, link.heard = True, 0, None, now
        self._change(host, link, LinkState.ALIVE, note)
        self._wake = min(self._wake, now + SILENT_BEATS * self.heartbeat)

    def heard(self, host: str, now: float) -> bool:
        """Anything arrived from the exec-server on `host`. False: it is not in, and must say hello first (it is asked to, by a welcome)."""
        link = self._links.get(host)
        if link is None or link.state is not LinkState.ALIVE:
            return False
        link.heard = now
        return True

    def left(self, host: str, reason: str) -> None:
        """The exec-server on `host` said goodbye, or nobody needs it any more."""
        link = self._links.get(host)
        if link is not None:
            link.is_wanted, link.hello_by, link.failures = False, None, 0
            self._change(host, link, LinkState.UNKNOWN, reason)

    def news(self) -> list[LinkNews]:
        """Links that changed since the last time, each as it is now."""
        news, self._news = list(self._news.values()), {}
        return news

    def hopeless(self) -> LinkNews | None:
        """A link that failed, if there is one and none is alive or on its way: then nothing of the user can start."""
        failed = None
        for host, link in self._links.items():
            if link.state is LinkState.FAILED and not link.is_dialling:
                failed = failed or LinkNews(host, link.state, link.reason)
            elif link.state is not LinkState.UNKNOWN:
                return None
        return failed

    def all_news(self) -> list[LinkNews]:
        """Every link that was ever asked for, as it is now: for a hq-server that has just come back."""
        self._news = {}
        return [LinkNews(host, link.state, link.reason) for host, link in self._links.items() if link.state is not LinkState.UNKNOWN]

    def _settle(self, host: str) -> Link:
        link = self._links.setdefault(host, Link())
        if link.is_dialling:
            link.is_dialling = False
            self._dialling -= 1
        return link

    def _change(self, host: str, link: Link, state: LinkState, reason: str) -> None:
        if (link.state, link.reason) != (state, reason):
            link.state, link.reason = state, reason
            self._news[host] = LinkNews(host, state, reason)
