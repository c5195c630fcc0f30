"""The enrolment socket is open to every user of the machine, whatever he sends: nobody keeps the others out, nothing grows, nothing is enrolled by it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from hq.model.user import Role
from hq.protocol.codec import encode_line
from hq.protocol.peers import KeyEnrol
from hq.server.enrolsocket import MAX_CONNECTIONS, MAX_LINE, MAX_LINES, MAX_OF_ONE, PATIENCE, EnrolLine, EnrolSocket
from tests.support.fuzz import Fuzz
from tests.support.wait import until

GOOD = encode_line(KeyEnrol(public="k" * 40, role=Role.USER_SERVER))
MEMORY = 32 << 20
NOBODY = 65534


@pytest.fixture
def door(tmp_path: Path) -> Iterator[EnrolSocket]:
    """The socket, where others may come to it."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-", tmp_path.name)):
            folder.chmod(0o755)
    made = EnrolSocket(str(tmp_path / "enrol"))
    yield made
    made.close()


def dial(door: EnrolSocket) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(door.path)
    return sock


def is_served(door: EnrolSocket, now: float) -> bool:
    """Whether a line of a newcomer arrives."""
    with dial(door) as sock:
        door.poll(now)
        try:
            sock.sendall(GOOD)
        except OSError:
            return False
        return [line.message is not None and line.uid == os.getuid() for line in (*door.poll(now), *door.poll(now))] == [True]


def test_whoever_says_nothing_goes_after_a_while_and_one_user_has_few_places(door: EnrolSocket) -> None:
    idle = [dial(door) for _ in range(60)]
    door.poll(0.0)
    assert len(door._connections) == MAX_OF_ONE
    assert not is_served(door, 1.0), "his places are taken, by himself"
    assert door.poll(PATIENCE + 1) == [] and not door._connections
    assert is_served(door, PATIENCE + 2)
    for sock in idle:
        sock.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_crowd_of_another_user_keeps_nobody_out(door: EnrolSocket) -> None:
    told, tell = os.pipe()
    stay, leave = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(leave)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            crowd = [dial(door) for _ in range(50)]
            os.write(tell, b"%d" % len(crowd))
            os.read(stay, 1)
        finally:
            os._exit(0)
    os.close(stay)
    os.close(tell)
    try:
        assert os.read(told, 10) == b"50"
        until(lambda: door.poll(1.0) == [] and len(door._connections) == MAX_OF_ONE, 20, "the crowd")
        assert is_served(door, 1.0)
    finally:
        os.close(leave)
        os.waitpid(child, 0)
    until(lambda: door.poll(2.0) == [] and not door._connections, 20, "the crowd to go")


def test_endless_and_many_lines_are_cut_off(door: EnrolSocket) -> None:
    with dial(door) as sock:
        sock.setblocking(False)
        door.poll(0.0)
        sent = 0
        with pytest.raises(OSError):
            for _ in range(1000):
                sent += sock.send(b"x" * 4096)
                door.poll(0.0)
        assert sent < 4 * MAX_LINE and not door._connections
    with dial(door) as sock:
        sock.sendall(GOOD * 40)
        got: list[EnrolLine] = []
        for _ in range(5):
            got += door.poll(0.0)
        assert 0 < len(got) <= MAX_LINES and not door._connections


@pytest.mark.parametrize("seed", range(3))
def test_nonsense_enrols_nothing(door: EnrolSocket, seed: int) -> None:
    fuzz, random = Fuzz(seed, without=("key.enrol",)), Random(seed)
    before, now = psutil.Process().memory_info().rss, time.monotonic()
    for number in range(600):
        with dial(door) as sock:
            line = fuzz.line() if number % 3 else random.randbytes(random.choice((1, 100, 5000)))
            if b"key.enrol" in line:
                continue
            for start in range(0, len(line), 700):  # slowly
                try:
                    sock.sendall(line[start : start + 700])
                except OSError:
                    break
                assert all(each.message is None for each in door.poll(now))
        assert all(each.message is None for each in door.poll(now))
        assert len(door._connections) <= MAX_CONNECTIONS
    assert psutil.Process().memory_info().rss - before < MEMORY
    assert is_served(door, now)
