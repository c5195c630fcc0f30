"""A real exec-server runs jobs: command, streams, environment, exit codes, limits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.ids import AttemptKey
from hq.model.states import Outcome, OutputAction, RunKind
from tests.support.execserver import ExecSite, is_alive
from tests.support.wait import until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecSite]:
    """An exec-server that is up and linked."""
    made = ExecSite(tmp_path_factory.mktemp("exec"))
    try:
        yield made.up()
    finally:
        made.close()


def test_a_shell_command_runs_and_its_outcome_is_reported(site: ExecSite) -> None:
    report = site.run("echo hello; echo oops >&2")
    assert (report.outcome, report.exit_code, report.signal) == (Outcome.OK, 0, None)
    assert site.output(report.job) == b"hello\n"
    assert site.output(report.job, "err") == b"oops\n"
    assert report.started is not None and report.at >= report.started


def test_an_exit_code_is_the_jobs_own(site: ExecSite) -> None:
    report = site.run("exit 7")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 7)


def test_a_signal_is_reported_as_such(site: ExecSite) -> None:
    report = site.run("kill -SEGV $$")
    assert (report.outcome, report.exit_code, report.signal) == (Outcome.FAILED, None, signal.SIGSEGV)
    assert "SIGSEGV" in report.reason
