"""Submissions that hq-server could not take: kept on this machine's disk until it is back, then sent, each once.

A file a submission, on the disk before its user is told that it is kept. Its jobs carry their submission keys, so that one which hq-server
had taken after all does not become two. What hq-server then refuses for good is kept beside, as `refused`, and shown in the status.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable

from hq.errors import RemoteError
from hq.kernel.clock import Now
from hq.kernel.files import make_private_dir, write_anew
from hq.protocol.base import Message, Problem
from hq.protocol.codec import decode, encode, envelope
from hq.protocol.jobs import JobSubmit, JobSubmitted, SubmitItem
from hq.userserver.upstream import ServerLink

#: Pauses between two tries while hq-server says "later" (seconds).
AGAIN = 10.0
_KEPT, _REFUSED = ".kept", ".refused"


class SubmissionSpool:
    """The spool of one user-server. `upstream` and `on_taken` (items, contents, answer) are set by the composition root."""

    upstream: ServerLink
    on_taken: Callable[[Iterable[SubmitItem], dict[str, bytes], JobSubmitted], None]

    def __init__(self, directory: str, log: logging.Logger) -> None:
        """Take over what an earlier user-server left. Raises SecurityError, OSError."""
        self.directory = make_private_dir(directory)
        self._log = log
        self._waiting = sorted(name for name in os.listdir(directory) if name.endswith(_KEPT))
        self._refused = sum(name.endswith(_REFUSED) for name in os.listdir(directory))
        self._sent: str | None = None  # the file whose answer is awaited
        self._try_at = 0.0
        self._next = int(self._waiting[-1].partition(".")[0]) + 1 if self._waiting else 1

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, message: JobSubmit, now: Now) -> str:
        """Keep a submission; it is on the disk on return. Returns where. Raises OSError."""
        self._next = max(self._next, int(now.wall * 1000))
        name = f"{self._next:020}{_KEPT}"
        path = os.path.join(self.directory, name)
        os.close(write_anew(path, encode(envelope(message))))
        self._sync_directory()
        self._next += 1
        self._waiting.append(name)
        self._try_at = now.boot + AGAIN
        return path

    def tick(self, now: Now) -> None:
        """Send the oldest one if hq-server is there."""
        if not self._waiting or self._sent is not None or now.boot < self._try_at or not self.upstream.is_up:
            return
        name = self._waiting[0]
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                message = decode(file.read()).messages[0]
        except (OSError, RemoteError, IndexError) as error:
            self._log.error("a kept submission cannot be read: %s: %s", name, error)
            self._try_at = now.boot + AGAIN
            self._waiting.append(self._waiting.pop(0))
            return
        self._sent = name
        self._try_at = now.boot + AGAIN
        assert isinstance(message, JobSubmit)
        self.upstream.ask(message, lambda answer, is_last: self._answered(name, message, answer))

    def wake(self) -> float | None:
        """When `tick` has something to do (CLOCK_BOOTTIME)."""
        return self._try_at if self._waiting and self._sent is None and self.upstream.is_up else None

    @property
    def is_known(self) -> bool:
        """Whether hq-server has ever let this user's user-server in on this machine: before that nobody says that it ever will."""
        return os.path.exists(self.directory + ".known")

    def came_back(self) -> None:
        """hq-server let us in: do not wait."""
        self._try_at = 0.0
        if not self.is_known:
            try:
                os.close(os.open(self.directory + ".known", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            except OSError as error:
                self._log.warning("%s.known cannot be written, submissions are not kept while hq-server is away: %s", self.directory, error)

    def facts(self) -> str:
        """In words, for the status."""
        words = f"{len(self._waiting)} submissions wait for hq-server in {self.directory}" if self._waiting else "empty"
        if self._refused:
            words += f"; {self._refused} were refused later, their reasons stand in {self.directory}"
        return words

    def _answered(self, name: str, message: JobSubmit, answer: Message) -> None:
        self._sent = None
        if isinstance(answer, JobSubmitted):
            self.on_taken(message.items, message.blobs, answer)
            ids = ", ".join(str(item.id) for item in answer.items[:20])
            self._log.info("a kept submission was taken: jobs %s", ids)
            self._put_away(name)
        elif isinstance(answer, Problem) and not answer.is_transient and self.upstream.is_up:
            self._log.error("a kept submission was refused: %s", answer.text)
            self._refused += 1
            self._put_away(name, answer.text)

    def _put_away(self, name: str, refusal: str = "") -> None:
        """It is answered. A disk that does not take that has it sent once more after the next start, which does no harm."""
        self._waiting.remove(name)
        self._try_at = 0.0
        path = os.path.join(self.directory, name)
        try:
            if refusal:
                os.replace(path, path.removesuffix(_KEPT) + _REFUSED)
                with open(path + ".reason", "w", encoding="utf-8") as file:
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {refusal}\n")
            else:
                os.unlink(path)
        except OSError as error:
            self._log.error("%s cannot be put away: %s", path, error)

    def _sync_directory(self) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
