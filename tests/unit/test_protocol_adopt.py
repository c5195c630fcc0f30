"""The words that any two versions of hq know: bytes of them as the first version wrote them are read for ever."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.protocol.adopt import ADOPT
from hq.protocol.base import PROTOCOL, Message, Problem, is_near
from hq.protocol.codec import decode, encode, envelope
from hq.protocol.jobs import LogData, LogFetch
from hq.protocol.peers import PeerBye, PeerHeartbeat, PeerRefused, PeerShutdown
from hq.protocol.runs import ExecHello, ExecWelcome, RunRecorded, RunReported, RunRoll, RunSignal, RunStop

KEY = AttemptKey(12, 3, 2)
REPORT = RunReport(job=12, index=3, attempt=2, kind=RunKind.ENDED, at=1.5, outcome=Outcome.FAILED, exit_code=7, max_rss=1 << 20, cpu=0.25, reason="why", pid=4711, started=1.0)
SAMPLES: tuple[Message, ...] = (
    ExecHello(version="0.1.0", protocol=1, boot="b", host="h", machine="m", pid=1, route="tcp://h:1"),
    ExecWelcome(heartbeat=5.0, epoch=3, slots=4, lease=120.0),
    PeerRefused(reason="no", address="a", may_change=True),
    PeerHeartbeat(),
    PeerBye(reason="stops"),
    PeerShutdown(and_hosts=True),
    RunRoll(host="h", runs=(KEY,)),
    RunReported(host="h", sequence=9, sent=2.0, reports=(REPORT,)),
    RunRecorded(host="h", sequence=9),
    RunStop(host="h", runs=(KEY,), outcome=Outcome.CANCELLED, reason="by alice", is_only_queued=True),
    RunSignal(host="h", runs=(KEY,), signal=10),
    LogFetch(job=12, index=3, attempt=2, signed=SignedSpec(b"body", b"signature"), stream="stdout", offset=0, limit=10),
    LogData(data=b"text", offset=0, size=4, is_end=True, path="/x"),
    Problem(text="no", exit_code=1, is_transient=True),
)
GOLDEN: dict[str, str] = json.loads((Path(__file__).parents[1] / "golden" / "adopt.json").read_text())


def test_each_word_has_its_bytes() -> None:
    assert {type(sample) for sample in SAMPLES} == set(ADOPT)
    assert set(GOLDEN) == {kind.__struct_config__.tag for kind in ADOPT}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__struct_config__.tag)
def test_what_the_first_version_wrote_is_read(sample: Message) -> None:
    """A failure here means that running exec-servers of an older hq are not understood any more: take the change back."""
    letter = decode(bytes.fromhex(GOLDEN[str(sample.__struct_config__.tag)]))
    assert letter.messages == [sample] and (letter.id, letter.re, letter.epoch) == (5, 0, 3)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__struct_config__.tag)
def test_the_first_version_reads_what_we_write(sample: Message) -> None:
    """Whatever was added since: all that stood in the first version's bytes still stands there, in its place."""
    old = msgspec.msgpack.decode(bytes.fromhex(GOLDEN[str(sample.__struct_config__.tag)]))
    new = msgspec.msgpack.decode(encode(envelope(sample, id=5, epoch=3)))
    assert new[1:4] == old[1:4]
    (was,), (now,) = old[4], new[4]
    assert contains(now, was), f"{now} lacks something of {was}"


def contains(now: object, was: object) -> bool:
    """Whether all of `was` is in `now`: maps may have more keys, and lists more at their end."""
    if isinstance(was, dict) and isinstance(now, dict):
        return all(name in now and contains(now[name], value) for name, value in was.items())
    if isinstance(was, list) and isinstance(now, list):
        return len(now) >= len(was) and all(map(contains, now, was))
    return now == was


def test_a_newer_peer_may_say_more() -> None:
    raw = msgspec.msgpack.decode(encode(envelope(SAMPLES[0])))
    raw[0] = PROTOCOL + 7
    raw[4][0]["colour"] = {"new": [1, 2]}
    letter = decode(msgspec.msgpack.encode(raw))
    assert letter.messages == [SAMPLES[0]] and letter.protocol == PROTOCOL + 7


def test_adjacent_versions_are_near() -> None:
    assert [is_near(PROTOCOL + step) for step in (-2, -1, 0, 1, 2)] == [False, True, True, True, False]
