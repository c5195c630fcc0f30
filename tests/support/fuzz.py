"""Frames that a peer might send who means no good or has lost its mind: messages of every kind with values of the right or nearly
the right types, whole frames with bytes changed, and plain noise. The same seed gives the same frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from hq.protocol.base import PROTOCOL, Message
from hq.protocol.codec import MESSAGES

_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63))
_TEXTS = ("", "alice", "bob", "one", "two", "1", "1_2", "all", "\0", "\x1b[2J", "x" * 300, "ü😀", "../../etc", "'; drop table job; --", "ab" * 16, "tcp://x:1")
_FLOATS = (0.0, 1.0, -1.0, 1e18, -1e18, 1e308, 0.1, float("inf"), float("nan"))


class Fuzz:
    """A source of frames."""

    def __init__(self, seed: int, *, without: Iterable[str] = ()) -> None:
        """`without`: tags of messages that are not made."""
        self.random = Random(seed)
        left_out = set(without)
        self._kinds: list[type[Message]] = [kind for tag, kind in sorted(MESSAGES.items()) if tag not in left_out]
        self._infos = {kind: inspect.type_info(kind) for kind in self._kinds}
        self._without = [tag.encode() for tag in left_out]

    def frames(self, count: int) -> Iterator[bytes]:
        """So many frames. None holds a message that is left out, by chance either."""
        made = 0
        while made < count:
            frame = self.frame()
            if not any(tag in frame for tag in self._without):
                made += 1
                yield frame

    def frame(self) -> bytes:
        """One."""
        random = self.random
        if random.random() < 0.05:
            return random.randbytes(random.choice((0, 1, 3, 50, 2000)))
        frame = msgspec.msgpack.encode(self.letter())
        if random.random() < 0.3:
            data = bytearray(frame)
            for _ in range(random.choice((1, 1, 2, 8))):
                place = random.randrange(len(data))
                what = random.random()
                if what < 0.6:
                    data[place] = random.randrange(256)
                elif what < 0.8:
                    del data[place:]
                    break
                else:
                    data[place:place] = random.randbytes(random.randrange(1, 9))
                if not data:
                    break
            frame = bytes(data)
        return frame

    def letter(self) -> list[Any]:
        """An envelope as builtins."""
        random = self.random
        ours = random.random() < 0.9
        return [
            PROTOCOL if ours else random.choice(_NUMBERS), random.choice((0, 1, 5, 2**40)) if ours else random.choice(_NUMBERS),
            random.choice((0, 1, 2, 3, 2**31)), random.choice((0, 0, 0, 1, 2, 3)), [self.message() for _ in range(random.choice((1, 1, 1, 2, 5)))],
        ]  # fmt: skip

    def message(self) -> Any:
        """A message as builtins."""
        return self._value(self._infos[self.random.choice(self._kinds)])

    def line(self) -> bytes:
        """A line of JSON with a message, or nearly."""
        random = self.random
        message = _plain(self.message())
        line = bytearray(msgspec.json.encode(message))
        if random.random() < 0.3:
            line[random.randrange(len(line))] = random.randrange(256)
        return bytes(line).replace(b"\n", b" ") + b"\n"

    def _value(self, info: inspect.Type) -> Any:
        random = self.random
        if random.random() < 0.01:
            return random.choice((None, True, -1, "", b"", [], {}, 1.5))
        match info:
            case inspect.StructType():
                made = {field.encode_name: self._value(field.type) for field in info.fields if field.required or random.random() < 0.5}
                if info.tag_field is not None:
                    made = {info.tag_field: info.tag, **made}
                return list(made.values()) if info.array_like else made
            case inspect.DataclassType():
                return {field.encode_name: self._value(field.type) for field in info.fields if field.required or random.random() < 0.5}
            case inspect.NamedTupleType():
                return [self._value(field.type) for field in info.fields]
            case inspect.UnionType():
                return self._value(random.choice(info.types))
            case inspect.EnumType():
                return random.choice([each.value for each in info.cls])
            case inspect.VarTupleType() | inspect.ListType() | inspect.SetType() | inspect.FrozenSetType():
                return [self._value(info.item_type) for _ in range(random.choice((0, 1, 1, 2, 5)))]
            case inspect.TupleType():
                return [self._value(each) for each in info.item_types]
            case inspect.DictType():
                pairs = [(self._value(info.key_type), self._value(info.value_type)) for _ in range(random.choice((0, 1, 2)))]
                return {key: value for key, value in pairs if isinstance(key, (str, int))}
            case inspect.IntType():
                return random.choice(_NUMBERS)
            case inspect.FloatType():
                return random.choice(_FLOATS)
            case inspect.BoolType():
                return random.random() < 0.5
            case inspect.BytesType():
                return random.randbytes(random.choice((0, 1, 64, 300)))
            case inspect.NoneType():
                return None
            case _:
                return random.choice(_TEXTS)


def _plain(value: Any) -> Any:
    """Without what JSON cannot say."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value != value:
        return None
    return value
