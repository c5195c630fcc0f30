"""Whether the ssh connection that started an exec-server is closed once nothing goes through it."""

from __future__ import annotations

import pytest

from hq.userserver.waysback import WaysBack


@pytest.mark.parametrize("is_hello_first", [True, False])
@pytest.mark.parametrize(("route", "is_unused"), [("tcp://192.0.2.1:7000", True), ("tcp://127.0.0.1:40001", False)])
def test_a_way_back_that_nobody_came_by_is_unused_whichever_is_heard_first(is_hello_first: bool, route: str, is_unused: bool) -> None:
    ways = WaysBack()
    steps = [lambda: ways.opened("node1", 40001), lambda: ways.came("node1", route)]
    if is_hello_first:
        steps.reverse()
    steps[0]()
    assert not ways.take_unused("node1"), "only half is known"
    steps[1]()
    assert ways.take_unused("node1") is is_unused
    assert not ways.take_unused("node1"), "once a start"


def test_the_next_exec_server_may_come_by_another_route() -> None:
    ways = WaysBack()
    ways.came("node1", "tcp://192.0.2.1:7000")
    ways.left("node1")
    ways.opened("node1", 40001)
    assert not ways.take_unused("node1")
    ways.came("node1", "tcp://127.0.0.1:40001")
    assert not ways.take_unused("node1")
