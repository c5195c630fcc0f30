"""Launches of jobs that are alike: what they share is worked out once, and nothing of one gets into another."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hq.execserver.backends.base import Launch, NotStarted
from hq.execserver.launch import BlobStore, Launcher
from hq.kernel.keys import Sealer, make_seal_key
from hq.model.job import JobSpec
from hq.model.runs import StartOrder

ALIKE = JobSpec(instance="i", user="alice", key="k-0", name="n", argv=(b"/bin/true",), cwd=b"/data")


class Bench:
    """Launchers of one exec-server's directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sealer = Sealer(make_seal_key())
        self.blobs = BlobStore(str(path / "blobs"))

    def launcher(self) -> Launcher:
        return Launcher("alpha", str(self._path / "home"), self.blobs, str(self._path / "scripts"), self.sealer)

    def keep(self, content: bytes) -> str:
        digest, sealed = self.sealer.seal(content)
        assert self.blobs.put(digest, sealed)
        return digest


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def launched(launcher: Launcher, spec: JobSpec, job: int, index: int = -1) -> Launch:
    launch = launcher.launch(spec, StartOrder(job, index, 1, (0,)), "tag")
    assert not isinstance(launch, NotStarted)
    return launch


def test_a_launch_is_the_same_whatever_was_launched_before(bench: Bench) -> None:
    one, other = bench.keep(b"A=1\0"), bench.keep(b"A=2\0BASH_ENV=x\0")
    specs = [
        ALIKE,
        *(replace(ALIKE, **{field: value}) for field, value in (
            ("argv", (b"/bin/false",)), ("name", "other"), ("cwd", b"/elsewhere"), ("stdin", b"in-{job}"), ("stdout", b"{job}-{index}.o"),
            ("stderr", b"{name}.e"), ("logfile", b"l.log"), ("env", one), ("env", other), ("umask", 0o77), ("slots", 3), ("nice", 5),
        )),
        *(replace(ALIKE, argv=(b"/bin/echo {job}",), is_shell=True, env=env) for env in ("", one, other)),
    ]  # fmt: skip
    shared = bench.launcher()
    for turn in range(2):
        for number, spec in enumerate(specs):
            job, index = 100 * turn + number + 1, 7 if number % 2 else -1
            assert launched(shared, spec, job, index) == launched(bench.launcher(), spec, job, index), spec


def test_alike_jobs_have_their_own_number_names_and_directory(bench: Bench) -> None:
    launcher = bench.launcher()
    for job in (5, 6):
        launch = launched(launcher, replace(ALIKE, key=f"k-{job}"), job)
        assert launch.env[b"HQ_JOB_ID"] == launch.env[b"HQ_TASK_ID"] == b"%d" % job
        assert launch.stdout.endswith(b"/i/output/%d/%d.out" % (job, job)) and os.path.isdir(os.path.dirname(launch.stdout))


def test_what_one_launch_does_with_its_environment_is_not_seen_by_the_next(bench: Bench) -> None:
    launcher = bench.launcher()
    launched(launcher, ALIKE, 1).env[b"LEAK"] = b"x"
    assert b"LEAK" not in launched(launcher, ALIKE, 1).env and b"LEAK" not in launched(launcher, ALIKE, 2).env


def test_a_directory_whose_parents_are_gone_is_made_with_them_and_a_file_in_its_place_is_told(bench: Bench, tmp_path: Path) -> None:
    launcher = bench.launcher()
    launched(launcher, ALIKE, 1)
    output = tmp_path / "home" / "i" / "output"
    output.rename(tmp_path / "moved")
    assert os.path.isdir(os.path.dirname(launched(launcher, ALIKE, 2).stdout))
    assert (output / "2").stat().st_mode & 0o777 == 0o700
    (output / "3").write_text("in the way")
    found = launcher.launch(ALIKE, StartOrder(3, -1, 1, (0,)), "tag")
    assert isinstance(found, NotStarted) and "output/3" in found.reason
