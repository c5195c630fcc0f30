"""hq is upgraded under the feet of an exec-server: the supervisor swaps the worker, and what runs, waits or has ended goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq import VERSION
from hq.execserver.program import Program, load_program, own_program, save_program
from hq.model.states import Outcome
from tests.support.execserver import ROOT, ExecSite, is_alive
from tests.support.wait import until

NEWER = "9.9.9"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ExecSite]:
    made = ExecSite(tmp_path, slots=2)
    try:
        yield made.up()
    finally:
        made.close()


@pytest.fixture
def newer(tmp_path: Path) -> dict[str, str]:
    """An environment in which hq is a newer version, in a directory of its own."""
    folder = tmp_path / "newer"
    shutil.copytree(ROOT / "hq", folder / "hq", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "hq" / "__init__.py"
    text = init.read_text()
    assert VERSION in text
    init.write_text(text.replace(VERSION, NEWER))
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def test_a_newer_start_dialogue_swaps_the_worker_and_nothing_is_lost(site: ExecSite, newer: dict[str, str]) -> None:
    loop = "while [ ! -e go ]; do sleep 0.05; done; echo done; exit 7"
    keys = site.upstream.start(*[site.spec(loop) for _ in range(3)])
    pids = [site.upstream.started(key).pid for key in keys[:2]]
    supervisor, worker = site.pid, site.worker_pid()
    assert site.upstream.hellos[-1].version == VERSION
    site.upstream.is_recording = False  # what ended before the swap is not acknowledged yet
    answer = site.bootstrap(newer)
    assert answer["ok"] and answer["adopted"] and answer["pid"] == supervisor
    site.upstream.until(lambda: site.upstream.hellos[-1].version == NEWER, "the new worker")
    site.linked()
    assert site.worker_pid() != worker and not is_alive(worker)
    assert set(keys) <= set(site.upstream.rolls[-1].runs)
    assert all(pid is not None and is_alive(pid) for pid in pids), "what runs, runs on"
    site.upstream.is_recording = True
    (site.work / "go").touch()
    for key in keys:
        report = site.upstream.ended(key)
        assert (report.outcome, report.exit_code) == (Outcome.FAILED, 7)
        assert site.output(key.job) == b"done\n", "once"
    assert [site.upstream.ended(key).pid for key in keys[:2]] == pids
    assert f"a worker of hq {NEWER} takes the place of this one, of hq {VERSION}" in site.log_text()


def test_the_same_program_is_not_swapped(site: ExecSite) -> None:
    worker = site.worker_pid()
    assert site.bootstrap()["adopted"]
    assert site.run("true").outcome is Outcome.OK
    assert site.worker_pid() == worker


def test_a_newer_program_that_does_not_live_leaves_the_runs_to_the_old_one(site: ExecSite, newer: dict[str, str]) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 3"))
    site.upstream.started(key)
    worker = site.worker_pid()
    (Path(newer["PYTHONPATH"]) / "hq" / "execserver" / "app.py").write_text("raise ImportError('half copied')\n")
    assert site.bootstrap(newer)["ok"]
    site.upstream.until(lambda: site.worker_pid() != worker, "the next worker")
    assert site.upstream.hellos[-1].version == VERSION
    (site.work / "go").touch()
    assert site.upstream.ended(key).exit_code == 3


def test_without_its_supervisor_a_worker_stays(site: ExecSite, newer: dict[str, str]) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 4"))
    site.upstream.started(key)
    worker = site.worker_pid()
    os.kill(site.pid, signal.SIGKILL)
    until(lambda: "the worker goes on alone" in site.log_text(), what="the worker to notice")
    answer = site.bootstrap(newer)
    assert answer["ok"] and answer["adopted"] and answer["pid"] == worker
    until(lambda: "without a supervisor this worker stays" in site.log_text(), what="the worker's word")
    (site.work / "go").touch()
    assert site.upstream.ended(key).exit_code == 4 and site.worker_pid() == worker


def test_a_program_that_cannot_be_used_is_none(tmp_path: Path) -> None:
    assert load_program(str(tmp_path)) is None
    own = own_program(VERSION)
    save_program(str(tmp_path), own)
    assert load_program(str(tmp_path)) == own and os.stat(tmp_path / "program").st_mode & 0o777 == 0o600
    for bad in (Program("1", "/nowhere/python", own.path), Program("1", own.python, str(tmp_path))):
        save_program(str(tmp_path), bad)
        assert load_program(str(tmp_path)) is None
    for text in ("", "[]", '{"version": 1}', "\x00"):
        (tmp_path / "program").write_text(text)
        assert load_program(str(tmp_path)) is None
