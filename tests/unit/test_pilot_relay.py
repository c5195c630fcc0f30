"""What a login node's exec-server gives to its pilots: slots that no two runs have at once, and orders that a pilot can always check."""

from __future__ import annotations

import logging
from typing import Any

from hq.execserver.pilotrelay import Link, PilotRelay
from hq.kernel.bus import Peer
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import StartOrder
from hq.protocol.runs import RunStart

SIGNED = {1: SignedSpec(b"body", b"signature")}


class Wire:
    """A port that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[RunStart] = []

    def send(self, letter: Any, peer: Peer | None = None) -> bool:
        self.sent += [message for message in letter.messages if isinstance(message, RunStart)]
        return True

    def receive(self) -> list[Any]:
        return []


def relay() -> tuple[PilotRelay, Link, Wire]:
    """One pilot of two slots, whose runs are short."""
    wire = Wire()
    made = PilotRelay(wire, "centre", logging.getLogger("test"))  # type: ignore[arg-type]
    link = made.links["a"] = Link("a", Peer(b"a", "key"), 2, 0.0, free=[0, 1], has_rolled=True, typical=0.01)
    return made, link, wire


def key(index: int) -> AttemptKey:
    return AttemptKey(1, index, 1)


def give(made: PilotRelay, link: Link, *indices: int) -> None:
    made.give(link, SIGNED, [StartOrder(1, index, 1, (0,)) for index in indices])


def test_slots_pass_to_heirs_and_no_two_runs_have_one() -> None:
    made, link, wire = relay()
    give(made, link, 0, 1, 2, 3)
    assert [(order.slots, order.is_ahead) for order in wire.sent[0].orders] == [((0,), False), ((1,), False), ((), True), ((), True)]
    made.over(link, key(0), key(2))
    made.over(link, key(2), key(3))
    assert (link.runs, link.free, link.ahead) == ({key(1): (1,), key(3): (0,)}, [], {})
    made.over(link, key(1))
    made.over(link, key(3))
    assert sorted(link.free) == [0, 1] and not link.runs


def test_slots_that_nobody_inherited_go_to_the_first_ahead_with_its_job() -> None:
    made, link, wire = relay()
    give(made, link, 0, 1, 2)
    made.over(link, key(0))
    made.promote(link)
    (order,) = wire.sent[-1].orders
    assert (order.key, order.slots, order.is_ahead) == (key(2), (0,), False)
    assert wire.sent[-1].specs == SIGNED, "the first order may not have been taken in there yet"
    made.promote(link)
    assert len(wire.sent) == 2


def test_while_another_slot_passes_on_there_the_last_ahead_gets_those_that_nobody_inherited() -> None:
    made, link, wire = relay()
    give(made, link, 0, 1, 2, 3, 4)
    made.over(link, key(0))
    made.promote(link)
    (order,) = wire.sent[-1].orders
    assert (order.key, order.slots) == (key(4), (0,)), "what is first here may have followed another there"
    made.over(link, key(1), key(2))
    assert link.runs == {key(2): (1,), key(3): (), key(4): (0,)} and list(link.ahead) == [key(3)] and not link.free
    made.over(link, key(2))
    made.over(link, key(4))
    made.promote(link)
    assert wire.sent[-1].orders[0].key == key(3)


def test_one_that_was_promoted_and_had_inherited_gives_the_others_back() -> None:
    made, link, _ = relay()
    give(made, link, 0, 1, 2)
    made.over(link, key(0))
    made.promote(link)  # slot 0
    made.over(link, key(1), key(2))  # it had begun with slot 1
    assert link.runs == {key(2): (1,)} and link.free == [0]
