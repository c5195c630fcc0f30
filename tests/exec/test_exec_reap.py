"""What is done at the end of a run, and what is put off: its successor begins in `reap`, what the end means comes out of `poll`."""

from __future__ import annotations

from pathlib import Path

from hq.execserver.backends.base import Launch, Started
from hq.execserver.backends.process import ProcessBackend
from hq.model.ids import AttemptKey
from tests.support.wait import until


def launch(folder: Path, index: int, command: bytes) -> Launch:
    return Launch(key=AttemptKey(1, index, 1), tag=f"reap{id(folder):x}{index:04}", argv=(b"/bin/sh", b"-c", command), env={b"PATH": b"/usr/bin:/bin"},
                  cwd=bytes(folder), umask=0o022, stdin=b"", stdout=bytes(folder / "out"), stderr=b"/dev/null")  # fmt: skip


def test_a_successor_begins_in_the_same_reap_and_ends_in_another(tmp_path: Path) -> None:
    noted: list[tuple[int, int | None]] = []

    def note(key: AttemptKey, code: int | None, number: int | None) -> None:
        noted.append((key.index, code))
        if key.index < 3:
            assert isinstance(backend.start(launch(tmp_path, key.index + 1, b"exit 0")), Started)

    backend = ProcessBackend(note)
    assert isinstance(backend.start(launch(tmp_path, 1, b"echo x; exit 0")), Started)
    moment = 100.0

    def have_ended(count: int) -> bool:
        nonlocal moment
        moment += 1.0
        begun = len(noted)
        backend.reap(moment)
        assert len(noted) <= begun + 1, "one that begins in a reap does not end in it"
        return len(noted) == count

    until(lambda: have_ended(1), what="the first end")
    first = moment
    until(lambda: have_ended(3), what="all ends")
    ended, gone = backend.poll(0.0)
    assert [(each.key.index, each.exit_code) for each in ended] == noted == [(1, 0), (2, 0), (3, 0)]
    moments = [each.at for each in ended]
    assert moments[0] == first and moments[-1] == moment and len(set(moments)) == 3 and not gone
    assert backend.poll(0.0) == ([], [])
