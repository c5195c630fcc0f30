"""A host that was rebooted is told apart from a worker that was restarted, by the boot in the journal; no stale file is in the way."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.execserver.backends.procs import boot_id
from hq.execserver.backends.statuses import status_line
from hq.model.states import Outcome
from tests.support.execserver import ExecSite, descendants, is_alive
from tests.support.wait import until

EARLIER = "00000000-dead-4bad-8bad-000000000000"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ExecSite]:
    made = ExecSite(tmp_path, slots=1)
    try:
        yield made.up()
    finally:
        made.close()


def power_off(site: ExecSite) -> None:
    """Everything of the exec-server and its runs is gone at once."""
    pids = [site.pid, *descendants(site.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, pids)), what="end of all processes")
    site.pid = 0


def boot_again(site: ExecSite, *, pid: int) -> None:
    """What stands on the disk is of an earlier boot now; `pid` is today somebody else's."""
    journal = site.run_dir / "journal"
    text = journal.read_bytes()
    assert boot_id().encode() in text
    journal.write_bytes(text.replace(boot_id().encode(), EARLIER.encode()))
    (site.run_dir / "lock").write_text(f"{pid}\n")
    (site.run_dir / "heard").write_text(f"{EARLIER} 123456789.0 60 1\n")
    (site.run_dir / "journal.new").write_bytes(b"half a journal")
    (site.run_dir / "program.new").write_bytes(b"{")


def test_what_ran_is_lost_and_what_may_have_begun_is_not_begun_again(site: ExecSite) -> None:
    running, queued = site.upstream.start(site.spec("echo once >> ran-1; exec sleep 600"), site.spec("echo once >> ran-2"))
    pid = site.upstream.started(running).pid
    assert pid is not None
    until(lambda: (site.work / "ran-1").exists() and (site.work / "ran-1").read_text() == "once\n", what="the run")
    before = len(site.upstream.hellos)
    power_off(site)
    boot_again(site, pid=os.getpid())
    # of another process that had the same pid in this boot
    (site.run_dir / "statuses").write_bytes(status_line(pid, 1, 0, 0, 0.0))
    answer = site.bootstrap()
    assert answer["ok"] and not answer.get("adopted"), answer
    site.upstream.until(lambda: len(site.upstream.hellos) > before, "hello after the reboot")
    report = site.upstream.ended(running)
    assert (report.outcome, report.reason) == (Outcome.LOST, "the host was restarted while it ran")
    report = site.upstream.ended(queued)
    assert (report.outcome, report.reason) == (Outcome.LOST, "the host was restarted; whether it had begun is not known")
    assert (site.work / "ran-1").read_text() == "once\n" and not (site.work / "ran-2").exists()
    assert site.run("true").outcome is Outcome.OK
    assert boot_id() in (site.run_dir / "journal").read_text()


def test_an_end_that_was_not_recorded_yet_is_told_after_the_reboot(site: ExecSite) -> None:
    site.upstream.is_recording = False
    (key,) = site.upstream.start(site.spec("exit 6"))
    assert site.upstream.ended(key).exit_code == 6
    power_off(site)
    boot_again(site, pid=1)
    site.upstream.reports.clear()
    site.upstream.is_recording = True
    assert site.bootstrap()["ok"]
    assert (site.upstream.ended(key).outcome, site.upstream.ended(key).exit_code) == (Outcome.FAILED, 6)


def test_a_restarted_worker_on_the_same_boot_keeps_its_run(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 2"))
    site.upstream.started(key)
    os.kill(site.worker_pid(), signal.SIGKILL)
    site.linked()
    (site.work / "go").touch()
    assert (site.upstream.ended(key).outcome, site.upstream.ended(key).exit_code) == (Outcome.FAILED, 2)


def test_a_lock_that_names_a_living_stranger_holds_nobody_up(site: ExecSite) -> None:
    power_off(site)
    (site.run_dir / "lock").write_text(f"{os.getpid()}\n")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(site.run_dir / "stale.sock"))
    assert not site.bootstrap().get("adopted")
    site.linked()
    assert site.run("true").outcome is Outcome.OK
