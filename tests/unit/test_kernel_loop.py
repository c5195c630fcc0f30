"""The loop: sockets, signals, deadlines, background work; and going into the background."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hq.kernel.bus import MemoryBus
from hq.kernel.clock import Now, SystemClock
from hq.kernel.daemon import Done
from hq.kernel.keys import make_curve_pair
from hq.kernel.loop import Loop, ThreadBackground
from hq.kernel.zmqbus import ZmqClient, ZmqServer
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerHeartbeat
from tests.support.wait import until

ROOT = Path(__file__).parents[2]


class Fake:
    """A daemon made of one function; it is done when that returns True, or after a stop."""

    def __init__(self, work: Callable[[Now], bool], wait: float | None = None) -> None:
        self.is_done = False
        self.ticks: list[float] = []
        self.stopped = 0
        self.reloaded = 0
        self._work = work
        self._wait = wait

    def tick(self, now: Now) -> float | None:
        self.ticks.append(now.boot)
        self.is_done = self._work(now) or self.is_done
        return None if self._wait is None else now.boot + self._wait

    def stop(self, now: Now) -> None:
        self.stopped += 1
        self.is_done = True

    def reload(self, now: Now) -> None:
        self.reloaded += 1


def drive(daemon: Fake, *ports: object, background: ThreadBackground | None = None, prepare: Callable[[Loop], object] = lambda loop: None) -> None:
    """Run a loop in this thread, with a guard that ends it should nothing do so."""
    loop = Loop(daemon, SystemClock(), ports, background)
    prepare(loop)
    guard = threading.Timer(120, lambda: (setattr(daemon, "is_done", True), loop.wake()))
    guard.start()
    loop.run()
    guard.cancel()
    loop.close()
    assert guard.finished.is_set()


def test_it_ticks_at_the_deadline_and_not_before() -> None:
    daemon = Fake(lambda now: len(daemon.ticks) >= 4, 0.05)
    drive(daemon)
    pauses = [later - earlier for earlier, later in zip(daemon.ticks, daemon.ticks[1:], strict=False)]
    assert len(pauses) == 3 and all(pause >= 0.05 for pause in pauses)


def test_a_readable_socket_wakes_it_and_an_unwatched_one_does_not() -> None:
    ours, theirs = socket.socketpair()
    got: list[bytes] = []

    def work(now: Now) -> bool:
        if daemon.ticks and len(daemon.ticks) == 1:
            theirs.send(b"x")
            return False
        got.append(ours.recv(10))
        return True

    daemon = Fake(work)
    drive(daemon, prepare=lambda loop: (loop.watch(ours), loop.watch(ours)))
    assert got == [b"x"] and len(daemon.ticks) == 2
    theirs.send(b"y")
    quiet = Fake(lambda now: len(quiet.ticks) == 2, 0.05)
    drive(quiet, prepare=lambda loop: (loop.watch(ours), loop.unwatch(ours), loop.unwatch(ours)))
    assert quiet.ticks[1] - quiet.ticks[0] >= 0.05
    ours.close()
    theirs.close()


def test_it_waits_for_writing_on_demand() -> None:
    ours, theirs = socket.socketpair()
    daemon = Fake(lambda now: len(daemon.ticks) == 2)
    drive(daemon, prepare=lambda loop: (loop.watch(ours), loop.watch(ours, is_writing=True)))
    assert len(daemon.ticks) == 2
    ours.close()
    theirs.close()


def test_messages_of_the_bus_wake_it_however_many_are_left_over() -> None:
    pair, client_pair = make_curve_pair(), make_curve_pair()
    server = ZmqServer("tcp://127.0.0.1:0", *pair)
    client = ZmqClient(f"tcp://127.0.0.1:{server.port}", pair[0], *client_pair)
    until(lambda: client.send(envelope(PeerHeartbeat(), id=1)))
    for number in range(2, 41):
        assert client.send(envelope(PeerHeartbeat(), id=number))
    got: list[int] = []

    def work(now: Now) -> bool:
        got.extend(each.letter.id for each in server.receive(1) if each.letter is not None)
        return len(got) == 40

    daemon = Fake(work)
    drive(daemon, server, MemoryBus().listen("x", "key"))
    assert got == list(range(1, 41))
    client.close()
    server.close()


def test_background_work_comes_back_and_wakes_it() -> None:
    background = ThreadBackground(2)
    release = threading.Event()
    got: list[Done] = []

    def work(now: Now) -> bool:
        if len(daemon.ticks) == 1:
            for number in range(6):
                background.run(number, lambda number=number: (release.wait(60), 10 // (number - 2)))
            release.set()
        got.extend(background.finished())
        return len(got) == 6

    daemon = Fake(work)
    drive(daemon, background=background)
    assert {done.token for done in got if done.error is None} == {0, 1, 3, 4, 5}
    assert [type(done.error) for done in got if done.token == 2] == [ZeroDivisionError]


def test_background_work_runs_side_by_side_up_to_its_bound() -> None:
    background = ThreadBackground(2)
    both = threading.Barrier(2, timeout=60)
    background.run("a", both.wait)
    background.run("b", both.wait)
    done: list[Done] = []
    until(lambda: done.extend(background.finished()) or len(done) == 2)
    assert all(each.error is None for each in done)


@pytest.mark.parametrize(("number", "stopped", "reloaded"), [(signal.SIGTERM, 1, 0), (signal.SIGINT, 1, 0), (signal.SIGHUP, 0, 1), (signal.SIGCHLD, 0, 0)])
def test_signals(number: int, stopped: int, reloaded: int) -> None:
    before = signal.getsignal(number)

    def work(now: Now) -> bool:
        if len(daemon.ticks) == 1:
            os.kill(os.getpid(), number)
        return len(daemon.ticks) == 2

    daemon = Fake(work)
    drive(daemon)
    assert (daemon.stopped, daemon.reloaded) == (stopped, reloaded)
    assert signal.getsignal(number) is before


def test_many_signals_do_not_deafen_it() -> None:
    """More signals than a pipe holds, one a tick."""

    def work(now: Now) -> bool:
        os.kill(os.getpid(), signal.SIGCHLD)
        return len(daemon.ticks) == 70_000

    daemon = Fake(work)
    drive(daemon)
    assert len(daemon.ticks) == 70_000


def test_what_a_tick_raises_ends_the_loop() -> None:
    def work(now: Now) -> bool:
        raise KeyError("broken")

    loop = Loop(Fake(work), SystemClock())
    with pytest.raises(KeyError):
        loop.run()
    loop.close()


_DAEMON = """
import os, sys
from hq.kernel.detach import detach
starting = detach()
if sys.argv[1] == "up":
    starting.up()
    print("nobody reads this")
    with open(sys.argv[2] + ".new", "w") as file:
        file.write(f"{os.getpid()} {os.getsid(0)} {os.getcwd()}")
    os.rename(sys.argv[2] + ".new", sys.argv[2])
elif sys.argv[1] == "fail":
    starting.fail("the port is in use\\nby somebody", 2)
else:
    os._exit(7)
"""


def start(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _DAEMON, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_daemon_that_is_up_lets_its_command_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    done = start("up", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid, session, folder = until(lambda: path.exists() and path.read_text()).split()
    assert int(pid) != int(session) != os.getsid(0) and folder == "/"


def test_a_daemon_that_does_not_come_up_says_why() -> None:
    done = start("fail")
    assert (done.returncode, done.stderr) == (2, "the port is in use\nby somebody\n")
    done = start("vanish")
    assert done.returncode == 1 and "ended" in done.stderr
