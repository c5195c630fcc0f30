"""The link to hq-server: hello, heartbeats, enrolment when the key is unknown, requests and their answers.

When the link breaks, what is not answered is asked again after the next welcome (submissions carry a key, so that is
harmless); what must not be repeated is answered with a problem. Messages that answer no request go to `on_message`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from hq.core.agent_turns import Turns
from hq.core.agent_upstream import PATIENCE, STANDBY_PATIENCE, Act, Phase, Requests, Upstream
from hq.kernel.bus import Port
from hq.kernel.clock import Now
from hq.kernel.identity import may_send
from hq.kernel.turning import TurningPort
from hq.model.user import Role
from hq.protocol.base import Message, Problem
from hq.protocol.codec import MAX_FRAME, encode, envelope
from hq.protocol.jobs import JobProgress, JobUnwatch, JobWatch
from hq.protocol.peers import PeerBye, PeerHeartbeat, PeerHello, PeerRefused, PeerWelcome

#: Messages in one envelope, and its size, beyond which the batch is split.
MAX_MESSAGES = 2000
MAX_BATCH = MAX_FRAME // 4
#: While there is no connection, a hello is tried so often (seconds).
KNOCK = 0.05
#: With several addresses the connection is looked at so often (seconds).
LOOK = 0.5

OnAnswer = Callable[[Message, bool], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to hq-server and who gets the answers: `on_answer(message, is_last)`."""

    message: Message
    on_answer: OnAnswer


class Enroller(Protocol):
    """What gets an unknown key registered; see `hq.userserver.enrol`."""

    def begin(self, now: Now, done: Callable[[str | None], None]) -> None:
        """Start; `done(None)` when the key is known, else with the reason."""
        ...


class ServerLink:
    """One connection to hq-server."""

    def __init__(
        self, port: Port, address: str, hello: Callable[[], PeerHello], enroller: Enroller, log: logging.Logger, now: Now,
        *, on_message: Callable[[Message], None], on_welcome: Callable[[PeerWelcome], None], on_refused: Callable[[PeerRefused], None],
    ) -> None:  # fmt: skip
        self._several = port if isinstance(port, TurningPort) and len(port.addresses) > 1 else None
        self.rule = Upstream(now.boot, patience=STANDBY_PATIENCE if self._several else PATIENCE)
        self._turns = Turns(now.boot)
        self.requests: Requests[Ask] = Requests()
        self.reason = ""  # why we are not in
        self._unresolved = ""  # why its name means nothing on this machine
        self.was_in = False  # let in at least once
        self.lease = 0.0  # of exec-servers, as hq-server says it
        self._port = port
        self._address = address
        self._hello = hello
        self._hello_id = 0
        self._enroller = enroller
        self._was_enrolled = False
        self._log = log
        self._now = now
        self._on_message = on_message
        self._on_welcome = on_welcome
        self._on_refused = on_refused
        self._news: list[Message] = []
        self._knocking = False

    @property
    def is_up(self) -> bool:
        """Whether hq-server has let us in and is heard."""
        return self.rule.is_up

    @property
    def epoch(self) -> int:
        """The epoch of hq-server's lease, as last heard."""
        return self.rule.epoch

    def ask(
        self, message: Message, on_answer: OnAnswer, *, is_stream: bool = False, is_repeatable: bool = True
    ) -> int:
        """Ask hq-server. Returns the request's number. Without a link it waits a little for one; then a problem is the answer."""
        if self.rule.phase is Phase.REFUSED:
            on_answer(self._away(), True)
            return 0
        pending = self.requests.add(Ask(message, on_answer), self._now.boot, is_stream=is_stream, is_repeatable=is_repeatable)
        if self.rule.is_up:
            self._send(pending.id, message)
        else:
            self.rule.nudge(self._now.boot)
        return pending.id

    def drop(self, request: int) -> None:
        """Nobody wants the answer any more; a watch is ended at hq-server, too."""
        for pending in self.requests.all():
            if pending.id == request and isinstance(pending.content.message, JobWatch) and self.is_up:
                self.tell(JobUnwatch(request=request))
        self.requests.drop(request)

    def tell(self, message: Message) -> bool:
        """Send with the end of the tick. False: there is no link, it is dropped."""
        if not self.is_up:
            return False
        self._news.append(message)
        return True

    def send_enrol(self, message: Message, on_answer: OnAnswer) -> None:
        """Send a message of the enrolment, which is allowed before the welcome."""
        pending = self.requests.add(Ask(message, on_answer), self._now.boot, is_repeatable=False)
        if not self._port.send(envelope(message, id=pending.id)):
            self.requests.drop(pending.id)
            on_answer(self._away(), True)

    def tick(self, now: Now) -> None:
        """Take what has arrived, and do what is due."""
        self._now = now
        for received in self._port.receive():
            if received.letter is None:
                self._log.warning("hq-server sent nonsense: %s", received.note)
                continue
            letter = received.letter
            if 0 < letter.epoch < self.rule.epoch:
                self._log.warning("a message of an older hq-server (epoch %d, now %d) was ignored", letter.epoch, self.rule.epoch)
                self._turn("is an older one")
                continue
            self.rule.heard(now.boot)
            for message in letter.messages:
                if may_send(message, Role.SERVER):
                    self._take(letter.re, message)
                else:
                    self._log.warning("hq-server sent a %s, which it may not: ignored", message.__struct_config__.tag)
        self._look_elsewhere()
        was_up = self.is_up
        while (act := self.rule.due(now.boot)) is not None:
            if act is Act.HELLO:
                self._knocking = not self._say_hello()
            else:
                self._port.send(envelope(PeerHeartbeat(), epoch=self.epoch))
        if self._knocking and self.rule.phase in (Phase.AWAY, Phase.TAKING_OVER):
            self._knocking = not self._say_hello()
        if was_up and not self.is_up:
            self._log.warning("hq-server at %s is silent", self._address)
            self._went()
        for pending in self.requests.take_overdue(now.boot, self.rule):
            text = self._away() if not self.is_up else Problem(
                text=f"hq-server at {self._address} has not answered this request; it may still be carried out", is_transient=True
            )  # fmt: skip
            pending.content.on_answer(text, True)

    def flush(self) -> None:
        """Send what was told during the tick, in few envelopes."""
        news, self._news = self._news, []
        if self.is_up:
            for start in range(0, len(news), MAX_MESSAGES):
                self._send_batch(news[start : start + MAX_MESSAGES])

    def wake(self) -> float | None:
        """When to tick again at the latest."""
        moments = [moment for moment in (self.rule.wake(), self.requests.wake(self.rule)) if moment is not None]
        if self._knocking and self.rule.phase is Phase.AWAY:
            moments.append(self._now.boot + KNOCK)
        elif self._several is not None and (self.is_up or self._hello_id):
            moments.append(self._now.boot + LOOK)
        return min(moments, default=None)

    def close(self, reason: str) -> None:
        """Say goodbye."""
        if self.is_up:
            self.flush()
            self._port.send(envelope(PeerBye(reason=reason), epoch=self.epoch))
        self._port.close()

    def looked_up(self, value: object, error: BaseException | None, now: Now) -> None:
        """What became of looking hq-server's name up: ZeroMQ does that by itself, and says nothing."""
        if error is not None:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._unresolved = f"its name cannot be looked up on this machine ({words}); 'server' in client.yaml says it"
            self._log.warning("%s: %s", self._address, self._unresolved)

    def away_text(self) -> str:
        """In a sentence, why nothing can be asked of hq-server now."""
        if self.rule.phase is Phase.REFUSED or (self.reason and self.rule.phase in (Phase.AWAY, Phase.TAKING_OVER)):
            return self.reason
        if self.rule.phase is Phase.ENROLLING:
            return f"hq-server at {self._address} does not know your key yet, and to enrol it takes long"
        since = time.strftime("%H:%M:%S", time.localtime(self._now.wall - (self._now.boot - self.rule.since)))
        return f"hq-server at {self._address} does not answer (since {since}): {self._unresolved or 'is it running?'}"

    def _look_elsewhere(self) -> None:
        """With several addresses: give up this one in good time."""
        if self._several is None:
            return
        now, is_connected = self._now.boot, self._several.is_connected()
        if self.is_up:
            if self._turns.is_broken(now, is_connected=is_connected, heard=self.rule.last_heard, heartbeat=self.rule.heartbeat):
                self._log.warning("hq-server at %s is not heard any more", self._address)
                self.rule.lost(now)
                self._went()
                self._turn("is silent")
        elif self.rule.phase in (Phase.AWAY, Phase.TAKING_OVER) and (self._knocking or self._hello_id):
            if self._turns.is_over(now, is_connected=is_connected):
                self._turn("does not answer" if is_connected else "cannot be reached")

    def _turn(self, why: str) -> None:
        """Try the next address at once."""
        if self._several is None:
            return
        before, self._address = self._address, self._several.turn()
        self._log.info("hq-server at %s %s: trying %s", before, why, self._address)
        self._turns.turned(self._now.boot)
        self._knocking = not self._say_hello()

    def _is_ours(self, address: str) -> bool:
        return address.rpartition(":")[0] == self._hello().address.rpartition(":")[0]

    def _away(self) -> Problem:
        return Problem(text=self.away_text(), is_transient=self.rule.phase is not Phase.REFUSED)

    def _say_hello(self) -> bool:
        if not self._hello_id:
            self._hello_id = self.requests.add(Ask(self._hello(), self._take_hello), inf, is_repeatable=False).id
        return self._port.send(envelope(self._hello(), id=self._hello_id))

    def _send(self, request: int, message: Message) -> None:
        if not self._port.send(envelope(message, id=request, epoch=self.epoch)):
            self._log.info("no connection to hq-server: request %d waits for it", request)

    def _send_batch(self, messages: list[Message]) -> None:
        letter = envelope(*messages, epoch=self.epoch)
        if len(messages) > 1 and len(encode(letter)) > MAX_BATCH:
            middle = len(messages) // 2
            self._send_batch(messages[:middle])
            self._send_batch(messages[middle:])
        elif not self._port.send(letter):
            self._log.warning("%d messages to hq-server were dropped: no connection", len(messages))

    def _take(self, re: int, message: Message) -> None:
        # a goodbye answers no request: a hq-server that is new does not know this connection, and is asked again after the welcome
        if re and not isinstance(message, PeerBye):
            is_last = not isinstance(message, JobProgress) or message.is_done
            pending = self.requests.answered(re, is_last=is_last)
            if pending is not None:
                pending.content.on_answer(message, is_last)
        elif isinstance(message, PeerBye):
            if self.is_up:
                self._log.info("hq-server said goodbye: %s", message.reason)
                self.rule.lost(self._now.boot)
                self._went()
            if self.rule.phase is Phase.AWAY:
                self._turn(f"says goodbye ({message.reason})")
        elif isinstance(message, PeerRefused):
            self._refuse(message)
        elif isinstance(message, Problem):
            self._log.warning("hq-server: %s", message.text)
        elif not isinstance(message, PeerHeartbeat):
            self._on_message(message)

    def _take_hello(self, message: Message, is_last: bool) -> None:
        self._hello_id = 0
        now = self._now.boot
        self._knocking = False
        if isinstance(message, PeerWelcome):
            self.reason = self._unresolved = ""
            self._was_enrolled = False
            self.rule.welcomed(now, message.heartbeat, message.epoch)
            self._turns.welcomed(now)
            self.lease, self.was_in = message.lease, True
            self._log.info("hq-server %s at %s let us in as %s", message.version, self._address, message.user)
            self._on_welcome(message)
            for pending in self.requests.all():
                self._send(pending.id, pending.content.message)
        elif isinstance(message, PeerRefused) and message.address and self._is_ours(message.address):
            # we hold this machine's lock, so that one is dead: hq-server will notice by its silence
            if self.rule.phase is not Phase.TAKING_OVER:
                self._log.info("waiting until hq-server gives up the user-server that was here before: %s", message.reason)
            self.reason = message.reason
            self.rule.taking_over(now)
        elif isinstance(message, PeerRefused):
            self._refuse(message)
        elif isinstance(message, Problem) and not message.is_transient and not self._was_enrolled:
            self._log.info("hq-server does not know our key: %s", message.text)
            self.rule.enrolling(now)
            self._enroller.begin(self._now, self._enrolled)
        else:
            self._put_off(message.text if isinstance(message, Problem) else "hq-server gave no proper answer to a hello")

    def _enrolled(self, refusal: str | None) -> None:
        if refusal is None:
            self._was_enrolled = True
            self.rule.enrolled(self._now.boot)
        else:
            self._put_off(refusal)

    def _put_off(self, reason: str) -> None:
        """Not let in for now: who waits is told why, at once, and it is tried again later, or when somebody asks."""
        self._log.warning("not let in by hq-server: %s", reason)
        self._was_enrolled = False
        self._hello_id = 0
        self.reason = reason
        self.rule.put_off(self._now.boot, 30.0)
        for pending in self.requests.all():
            self.requests.drop(pending.id)
            pending.content.on_answer(Problem(text=reason), True)

    def _refuse(self, message: PeerRefused) -> None:
        if message.may_change:
            self._put_off(message.reason)
            return
        self._log.error("hq-server refused us: %s", message.reason)
        self.reason = message.reason
        self.rule.refused(self._now.boot)
        for pending in self.requests.all():
            self.requests.drop(pending.id)
            pending.content.on_answer(self._away(), True)
        self._on_refused(message)

    def _went(self) -> None:
        self._news.clear()
        for pending in self.requests.all():
            if not pending.is_repeatable and pending.id != self._hello_id:
                self.requests.drop(pending.id)
                pending.content.on_answer(
                    Problem(text=f"the connection to hq-server broke before the answer came: look whether it was done ({self.away_text()})",
                            is_transient=True), True)  # fmt: skip
