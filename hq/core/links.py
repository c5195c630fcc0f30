"""How one user's exec-server on one host stands, as hq-server knows it."""

from __future__ import annotations

from typing import NamedTuple

from hq.model.states import LinkState


class Link(NamedTuple):
    """A link and why it stands so."""

    state: LinkState
    reason: str


UNKNOWN_LINK = Link(LinkState.UNKNOWN, "")
#: Links over which nothing new is sent.
CLOSED_LINKS = frozenset({LinkState.FAILED, LinkState.SUSPECT})
