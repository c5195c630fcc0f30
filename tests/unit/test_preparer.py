"""What the user-server signs: environments are sealed once while they stay the same, and each job has the one that it came with."""

from __future__ import annotations

import pytest

from hq.errors import InputError
from hq.kernel.keys import Sealer, Signer, make_seal_key, make_sign_pair
from hq.protocol.jobs import JobAsk, JobRequest
from hq.protocol.specs import decode_spec
from hq.userserver.submit import Preparer


class CountingSealer(Sealer):
    """Counts what it seals."""

    sealed = 0

    def seal(self, data: bytes) -> tuple[str, bytes]:
        self.sealed += 1
        return super().seal(data)


def ask(key: str, *environments: tuple[bytes, ...]) -> JobAsk:
    jobs = tuple(JobRequest(argv=(b"/bin/true",), cwd=b"/", env=env, line=number) for number, env in enumerate(environments, 1))
    return JobAsk(key=key, jobs=jobs)


def test_each_job_has_the_environment_that_it_came_with_and_only_a_new_one_is_sealed() -> None:
    sealer = CountingSealer(make_seal_key())
    preparer = Preparer("i", "alice", Signer(make_sign_pair()[1]), sealer)
    one, other = (b"A=1",), (b"A=2", b"B=")
    for key, environments, count in (("a", (one,), 1), ("b", (one,), 1), ("c", (one, one, other), 2), ("d", (other,), 2), ("e", (one, ()), 4), ("f", ((),), 4)):
        prepared = preparer.prepare(ask(key, *environments))
        for item, environment in zip(prepared.items, environments, strict=True):
            digest = decode_spec(item.signed.body).env
            assert sealer.open(prepared.blobs[digest], digest) == b"\0".join(environment)
        assert set(prepared.blobs) == {decode_spec(item.signed.body).env for item in prepared.items}
        assert sealer.sealed == count, key


def test_a_nul_byte_is_refused_each_time_and_leaves_nothing_behind() -> None:
    preparer = Preparer("i", "alice", Signer(make_sign_pair()[1]), Sealer(make_seal_key()))
    preparer.prepare(ask("a", (b"A=1",)))
    for key in ("b", "c"):
        with pytest.raises(InputError, match="NUL byte"):
            preparer.prepare(ask(key, (b"A=1\0B=2",)))
    assert preparer.prepare(ask("d", (b"A=1",))).items
