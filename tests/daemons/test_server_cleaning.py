"""The loop that clears the database: blobs go with the last job that needs them, history as its owner wants, and ids are never given twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.kernel.keys import digest_of
from tests.support.serverroom import Room, UserServer

DAY = 86400.0


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path, text="history_days: 7\n")
    yield made
    assert made.server.counts["faults"] == 0
    made.close()


def run(room: Room, alice: UserServer, blob: bytes) -> int:
    """A job of hers that has ended."""
    job = alice.submit("true", blobs=(blob,), env=digest_of(blob))
    alice.run(job, exit_code=0)
    assert not any(live.id == job for live in room.store.load().jobs)
    return job


def turn(room: Room) -> None:
    """Let the loop come round."""
    room.admin("setloopinterval", "cleaning", "1")
    room.tick(2.0)


def test_a_blob_stays_as_long_as_a_live_job_needs_it(room: Room) -> None:
    alice = room.user("alice")
    once, shared = b"sealed once", b"sealed for several"
    run(room, alice, once)
    run(room, alice, shared)
    alice.submit("sleep", blobs=(shared,), env=digest_of(shared))
    turn(room)
    assert set(room.store.blobs([digest_of(once), digest_of(shared)])) == {digest_of(shared)}
    again = alice.submit("true", blobs=(once,), env=digest_of(once))
    turn(room)
    assert again and digest_of(once) in room.store.blobs([digest_of(once)])


def test_old_history_goes_and_its_ids_are_not_given_again(room: Room) -> None:
    alice = room.user("alice")
    job = run(room, alice, b"sealed")
    turn(room)
    assert room.store.load().last_job == job, "it is not old yet"
    room.clock.move(8 * DAY)
    turn(room)
    assert room.store.load().last_job == 0
    room.port.close()
    room.start()
    assert room.user("alice").submit("true") == job + 1
