"""A user-server that says what a test tells it to: a thread on a real Unix socket that speaks the real codec."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from hq.errors import RemoteError
from hq.kernel.places import user_run_dir
from hq.model.rows import HostRow, Row
from hq.protocol.base import Message, Problem
from hq.protocol.codec import decode_line, encode_line
from hq.protocol.jobs import JobAsk, JobSubmitted, SubmittedItem

#: What a test says to a message: answers in order; None hangs up without a word.
Answer = Callable[[Message], "list[Message | None]"]


def accept_all(message: Message) -> list[Message | None]:
    """Accepts every job, with ids from 1."""
    assert isinstance(message, JobAsk)
    first = 0 if message.is_dry_run else 1
    return [
        JobSubmitted(
            items=tuple(
                SubmittedItem(key=f"{message.key}-{n}", id=first and first + n, tasks=1) for n in range(len(message.jobs))
            )
        )
    ]


class FakeUserServer:
    """Listens where the commands look. `heard` holds every message that came, `nonsense` what was none."""

    def __init__(self, path: str, answer: Answer) -> None:
        self.path = path
        self.answer = answer
        self.heard: list[Message] = []
        self.nonsense: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FakeUserServer:
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(10)
        for connection in self._open:
            connection.close()
        os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                try:
                    message = decode_line(line)
                except RemoteError as error:
                    self.nonsense.append(f"{error}: {line[:500]!r}")
                    connection.sendall(encode_line(Problem(text=str(error), exit_code=2)))
                    continue
                self.heard.append(message)
                for each in self.answer(message):
                    if each is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(encode_line(each))


class Stage:
    """An instance's etc directory and a user's home, for commands; and where its user-server would listen."""

    def __init__(self, root: Path) -> None:
        self.etc = root / "etc"
        self.home = root / "home"
        self.instance = f"test-{secrets.token_hex(4)}"
        self.run_dir = Path(user_run_dir(self.instance))
        self.etc.mkdir(mode=0o755)
        self.home.mkdir(mode=0o700)
        (self.etc / "client.yaml").write_text(
            f"instance: {self.instance}\nserver: tcp://127.0.0.1:1\nserver_key: '{'x' * 40}'\nenrol_socket: {root}/enrol.sock\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the commands find it by."""
        return {"HQ_ETC": str(self.etc), "HQ_HOME": str(self.home)}

    def serve(self, answer: Answer = accept_all) -> FakeUserServer:
        """A user-server on this stage, to be used in a `with`."""
        self.run_dir.parent.mkdir(mode=0o700, exist_ok=True)
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        return FakeUserServer(str(self.run_dir / "client.sock"), answer)


@contextmanager
def stage(root: Path) -> Iterator[Stage]:
    """A stage under `root`; its run directory is removed at the end."""
    made = Stage(root)
    try:
        yield made
    finally:
        shutil.rmtree(made.run_dir, ignore_errors=True)


def row(**changes: object) -> Row:
    """A row of a listing: a job that ended well, unless told otherwise."""
    fields: dict[str, object] = {
        "id": 12, "task": "12", "name": "hello", "group": "", "user": "alice", "command": "echo hello", "state": "finished",
        "outcome": "ok", "exit_code": 0, "host": "node1", "attempt": 1, "submitted": 1_700_000_000.0, "started": 1_700_000_001.0,
        "ended": 1_700_000_003.5, "max_rss": 1 << 20, "cpu_seconds": 0.25, "tasks": {"finished:ok": 1},
    }  # fmt: skip
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def host(**changes: object) -> HostRow:
    """A row of a listing of hosts."""
    fields: dict[str, object] = {
        "name": "node1", "address": "node1.example", "state": "active", "reachable": True, "slots": 4, "occupied": 1, "total": 8,
        "load1": 0.5, "load5": 0.4, "load15": 0.3, "memory": 8 << 30, "memory_free": 6 << 30, "transport": "ssh", "backend": "process",
        "queue": "", "info": "", "link": "alive",
    }  # fmt: skip
    return HostRow(**{**fields, **changes})  # type: ignore[arg-type]
