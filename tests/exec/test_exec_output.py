"""What jobs write: its limit, the files that it goes to, the log, and how it is read from afar."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from hq.model.runs import RunReport
from hq.model.states import Outcome, OutputAction
from tests.support.execserver import ExecSite, is_alive
from tests.support.wait import until


def output_path(site: ExecSite, job: int) -> Path:
    """Where a plain job's default output goes."""
    return site.home / site.instance / "output" / str(job) / f"{job}.out"


def test_output_that_grew_and_ended_between_two_looks_is_trimmed_too(site: ExecSite) -> None:
    def unseen(**fields: Any) -> RunReport:
        (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.02; done; exec head -c 5000000 /dev/zero", output_limit=1 << 20, **fields))
        pid = site.upstream.started(key).pid
        assert pid is not None
        os.kill(site.worker_pid(), signal.SIGSTOP)  # it does not look
        (site.work / "go").touch()
        until(lambda: not is_alive(pid), what="end of the writer")
        (site.work / "go").unlink()
        os.kill(site.worker_pid(), signal.SIGCONT)
        return site.upstream.ended(key)

    report = unseen()
    assert report.outcome is Outcome.OK and "middle was cut out" in report.reason
    found = output_path(site, report.job).stat()
    assert found.st_size == 5_000_000 and found.st_blocks * 512 <= 1 << 20
    report = unseen(output_action=OutputAction.STOP)
    assert report.outcome is Outcome.OK and "over the limit" in report.reason, "there was nothing left to stop"


def test_trim_keeps_head_and_tail(site: ExecSite) -> None:
    words = "echo FIRST; head -c 9000000 /dev/zero | tr '\\0' x; echo LAST; touch full; while [ ! -e more ]; do sleep 0.02; done; echo AFTER"
    (key,) = site.upstream.start(site.spec(words, output_limit=1 << 20))
    path = output_path(site, key.job)
    site.upstream.until((site.work / "full").exists, "all lines but one")
    site.upstream.until(lambda: path.stat().st_blocks * 512 <= 1 << 20, "the cut")
    (site.work / "more").touch()
    report = site.upstream.ended(key)
    data = path.read_bytes()
    assert report.outcome is Outcome.OK and "middle was cut out" in report.reason
    assert data.startswith(b"FIRST\n") and data.endswith(b"LAST\nAFTER\n")
    assert b"bytes were cut out here" in data
    assert path.stat().st_blocks * 512 <= 1 << 20
    assert len(data) > 9_000_000  # the size stays: offsets of readers do not shift


def test_stop_ends_a_job_that_writes_too_much(site: ExecSite) -> None:
    report = site.run("head -c 3000000 /dev/zero; exec sleep 1000", output_limit=1 << 20, output_action=OutputAction.STOP)
    assert report.outcome is Outcome.FAILED and "over the limit of 1M" in report.reason


def test_warn_only_says_so(site: ExecSite) -> None:
    report = site.run("head -c 3000000 /dev/zero; sleep 1.5", output_limit=1 << 20, output_action=OutputAction.WARN)
    assert report.outcome is Outcome.OK and "over the limit" in report.reason


def test_the_combined_log_ends_with_a_summary(site: ExecSite) -> None:
    report = site.run("echo out; echo err >&2; exit 3", logfile=b"{name}-{job}.log", name="a/b")
    text = (site.work / f"ab-{report.job}.log").read_text()
    assert text.startswith("out\nerr\nhq: command: echo out; echo err >&2; exit 3\n")
    assert "hq: host: alpha" in text and "running time:" in text
    assert text.endswith("hq: outcome: failed: exit code 3\n")


def test_a_log_file_that_no_stream_goes_to_has_the_summary(site: ExecSite) -> None:
    site.run("echo out", logfile=b"alone.log", stdout=b"alone.out", stderr=b"alone.err", umask=0o027)
    path = site.work / "alone.log"
    assert path.read_text().startswith("hq: command: echo out\n") and path.stat().st_mode & 0o777 == 0o640


def test_a_fifo_as_output_fails_instead_of_holding_up_everything(site: ExecSite) -> None:
    os.mkfifo(site.work / "fifo")
    report = site.run("true", stdout=b"fifo")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 125)


def test_dev_null_and_one_file_for_both(site: ExecSite) -> None:
    assert site.run("echo x", stdout=b"/dev/null").outcome is Outcome.OK
    site.run("echo a; echo b >&2; echo c", stdout=b"both", stderr=b"both")
    assert (site.work / "both").read_text() == "a\nb\nc\n"


def test_log_fetch_follows_the_signed_spec(site: ExecSite) -> None:
    from hq.protocol.base import Problem
    from hq.protocol.jobs import LogData, LogFetch

    spec = site.spec("echo 0123456789")
    signed = site.user.sign(spec)
    (key,) = site.upstream.start(spec)
    site.upstream.ended(key)
    ask = {"job": key.job, "index": key.index, "attempt": 1, "signed": signed}
    got = site.upstream.ask(LogFetch(**ask, stream="stdout", offset=-4))  # type: ignore[arg-type]
    assert isinstance(got, LogData)
    assert (got.data, got.offset, got.size, got.is_end) == (b"789\n", 7, 11, True)
    assert isinstance(site.upstream.ask(LogFetch(**ask, stream="log", offset=0)), Problem)  # type: ignore[arg-type]
    wrong = {**ask, "signed": type(signed)(signed.body.replace(b"0123", b"3210"), signed.signature)}
    assert isinstance(site.upstream.ask(LogFetch(**wrong, stream="stdout", offset=0)), Problem)  # type: ignore[arg-type]


def test_log_fetch_gives_no_device(site: ExecSite) -> None:
    from hq.protocol.base import Problem
    from hq.protocol.jobs import LogFetch

    signed = site.user.sign(site.spec("true", stdout=b"/dev/zero"))
    got = site.upstream.ask(LogFetch(job=5, index=-1, attempt=1, signed=signed, stream="stdout", offset=0))
    assert isinstance(got, Problem) and "regular file" in got.text
