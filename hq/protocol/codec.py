"""Messages to bytes and back: MessagePack envelopes between daemons, JSON lines on a user-server's Unix socket.

An envelope is a batch. Decoding validates types and ranges; whatever does not fit raises RemoteError, which the daemon
loop notes in the log. Unknown fields are ignored, so that a newer peer may say more.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import msgspec

from hq import VERSION
from hq.errors import RemoteError
from hq.protocol import admin, jobs, ledgers, peers, runs
from hq.protocol.base import PROTOCOL, Message, Problem

#: Largest frame that any socket accepts, in bytes.
MAX_FRAME = 64 << 20


def _declared() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {"problem": Problem}
    for module in (peers, jobs, runs, ledgers, admin):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Message) and value is not Message:
                found[str(value.__struct_config__.tag)] = value
    return found


#: Every message by its tag.
MESSAGES: dict[str, type[Message]] = _declared()

AnyMessage: Any = reduce(or_, MESSAGES.values())


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A batch of messages on the wire. `id` names a request (0: none), `re` the request that is answered."""

    protocol: int
    epoch: int
    id: int
    re: int
    messages: list[Any]


class _Typed(msgspec.Struct, frozen=True, array_like=True):
    protocol: int
    epoch: int
    id: int
    re: int
    messages: list[AnyMessage]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Typed)
_JSON_ENCODER = msgspec.json.Encoder()
_JSON_DECODER = msgspec.json.Decoder(AnyMessage)


def envelope(*messages: Message, id: int = 0, re: int = 0, epoch: int = 0) -> Envelope:
    """An envelope of this protocol version around some messages."""
    return Envelope(PROTOCOL, epoch, id, re, list(messages))


def encode(letter: Envelope) -> bytes:
    """MessagePack bytes of an envelope."""
    return _ENCODER.encode(letter)


def decode(frame: bytes | memoryview) -> Envelope:
    """Read an envelope. Raises RemoteError, never anything else, whatever the bytes are."""
    try:
        got = _DECODER.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise RemoteError(f"a frame of {len(frame)} bytes cannot be read: {error}") from None
    return Envelope(got.protocol, got.epoch, got.id, got.re, got.messages)


def encode_line(message: Message) -> bytes:
    """A message as one line of JSON, with its newline."""
    return _JSON_ENCODER.encode(message) + b"\n"


def decode_line(line: bytes) -> Message:
    """Read one line of JSON. Raises RemoteError for whatever is no message."""
    try:
        message = _JSON_DECODER.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise RemoteError(f"not a message: {error}{_of_another_version(line)}") from None
    assert isinstance(message, Message)
    return message


class _Tagged(msgspec.Struct):
    type: str


def _of_another_version(line: bytes) -> str:
    """What to do about a line that may be a message of a newer hq."""
    try:
        tag = msgspec.json.decode(line, type=_Tagged).type
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    if tag in MESSAGES:
        return ""
    return f". This user-server is hq {VERSION} and knows no '{tag[:40]}': if the command is newer, 'hq-client shutdown' ends it (jobs run on), and the next command starts a new one"


def to_builtins(value: Any) -> Any:
    """Structs and dataclasses as dicts and lists, for `--json`."""
    return msgspec.to_builtins(value)
