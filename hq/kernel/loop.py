"""The loop that drives a daemon: it waits for sockets, signals, background work or the next deadline, then calls `tick`.

One thread, one daemon. SIGTERM and SIGINT stop it, SIGHUP reloads it, SIGCHLD wakes it. Not the place for what a daemon does.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from hq.kernel.clock import Clock
from hq.kernel.daemon import Background, Daemon, Done

#: The loop ticks at least this often, so that a lost wake-up costs a pause and not a life.
LONGEST_WAIT = 30.0


class Pollable(Protocol):
    """A port that the loop waits for: file descriptors that become readable, and whether there is something now."""

    def fds(self) -> list[int]:
        """Descriptors to wait for."""
        ...

    def is_ready(self) -> bool:
        """Whether `receive` would give something, whatever the descriptors say (ZeroMQ's are edge-triggered)."""
        ...


class Loop:
    """Drives one daemon until it is done. `ports` may be any; those with `fds` are waited for."""

    def __init__(self, daemon: Daemon, clock: Clock, ports: Sequence[Any] = (), background: Background | None = None) -> None:
        self._daemon = daemon
        self._clock = clock
        self._ports: list[Pollable] = []
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signals: set[int] = set()
        self._signal_pipe = -1
        self._epoll.register(self._bell, select.EPOLLIN)
        for port in ports:
            self.add_port(port)
        if background is not None and hasattr(background, "fileno"):
            self.watch(background)

    def add_port(self, port: Any) -> None:
        """Wait for a port, too. Ports in memory have nothing to wait for and are passed over."""
        if hasattr(port, "fds"):
            self._ports.append(port)
            for descriptor in port.fds():
                self.watch(descriptor)

    def remove_port(self, port: Any) -> None:
        """Do not wait for a port any more. To be called before it is closed."""
        if port in self._ports:
            self._ports.remove(port)
            for descriptor in port.fds():
                self.unwatch(descriptor)

    def watch(self, target: Any, is_writing: bool = False) -> None:
        """Tick when a descriptor (or an object with `fileno`) can be read, with `is_writing` also when it can be written. May be called again to change that."""
        descriptor = target if isinstance(target, int) else target.fileno()
        mask = select.EPOLLIN | (select.EPOLLOUT if is_writing else 0)
        try:
            self._epoll.register(descriptor, mask)
        except FileExistsError:
            self._epoll.modify(descriptor, mask)
        self._watched[descriptor] = mask

    def unwatch(self, target: Any) -> None:
        """Do not wait for a descriptor any more. One that was closed already is no error."""
        descriptor = target if isinstance(target, int) else target.fileno()
        if self._watched.pop(descriptor, None) is not None:
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                pass

    def wake(self) -> None:
        """Make the loop tick soon. May be called from any thread."""
        try:
            os.eventfd_write(self._bell, 1)
        except BlockingIOError:
            pass

    def run(self) -> None:
        """Tick until the daemon is done. What a tick raises ends the loop and is raised here."""
        restore = None
        if threading.current_thread() is threading.main_thread():
            restore = self._take_signals()
            # what is here now stays; without it a collection under load would walk all modules over and over
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
        try:
            while not self._daemon.is_done:
                self._pass_signals()
                deadline = self._daemon.tick(self._clock.now())
                if self._daemon.is_done:
                    break
                self._wait(deadline)
        finally:
            if restore is not None:
                restore()

    def close(self) -> None:
        """Give up the loop's own descriptors."""
        self._epoll.close()
        os.close(self._bell)

    def _wait(self, deadline: float | None) -> None:
        wait = LONGEST_WAIT if deadline is None else min(max(deadline - self._clock.now().boot, 0.0), LONGEST_WAIT)
        if self._signals or any(port.is_ready() for port in self._ports):
            wait = 0.0
        # rounded up: a wake-up before the deadline would spin
        for descriptor, _ in self._epoll.poll(wait + 0.0005 if wait else 0.0):
            if descriptor in (self._bell, self._signal_pipe):
                try:
                    os.read(descriptor, 4096)
                except BlockingIOError:
                    pass

    def _pass_signals(self) -> None:
        signals, self._signals = self._signals, set()
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._daemon.stop(self._clock.now())
        elif signal.SIGHUP in signals:
            reload = getattr(self._daemon, "reload", None)
            if reload is not None:
                reload(self._clock.now())

    def _take_signals(self) -> Callable[[], None]:
        """Install the handlers; the result puts the old ones back."""

        def note(number: int, _: object) -> None:
            self._signals.add(number)

        before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)}
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # a signal between the test of `_signals` and the wait must end the wait
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._epoll.register(reader, select.EPOLLIN)
        self._signal_pipe = reader

        def restore() -> None:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._epoll.unregister(reader)
            self._signal_pipe = -1
            os.close(reader)
            os.close(writer)

        return restore


class ThreadBackground:
    """Runs blocking calls in a few threads of its own. They are daemonic: a hanging ssh does not hold up the end of the process."""

    def __init__(self, max_workers: int = 8) -> None:
        self._max = max_workers
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Any, Callable[[], Any]]] = SimpleQueue()
        self._done: deque[Done] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """A descriptor that is readable while outcomes wait."""
        return self._bell

    def run(self, token: Any, function: Callable[[], Any]) -> None:
        """As Background.run. Calls beyond `max_workers` wait for their turn."""
        with self._lock:
            if self._idle <= self._work.qsize() and self._threads < self._max:
                self._threads += 1
                threading.Thread(target=self._serve, name="hq-background", daemon=True).start()
        self._work.put((token, function))

    def finished(self) -> list[Done]:
        """As Background.finished."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass
        return [self._done.popleft() for _ in range(len(self._done))]

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            token, function = self._work.get()
            with self._lock:
                self._idle -= 1
            try:
                done = Done(token, function(), None)
            except BaseException as error:  # noqa: BLE001 - handed to the daemon as an outcome
                done = Done(token, None, error)
            self._done.append(done)
            os.eventfd_write(self._bell, 1)
