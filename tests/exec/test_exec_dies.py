"""Any part of an exec-server is killed at any time: runs run on, no exit status is lost, nothing runs twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hq.execserver.backends.process import STATUS_GRACE
from hq.model.ids import AttemptKey
from hq.model.states import Outcome, RunKind
from hq.protocol.peers import PeerAsk
from tests.support.execserver import ExecSite, is_alive
from tests.support.wait import until


def kill_worker(site: ExecSite) -> None:
    """`kill -9` of the worker, and wait for the next one's roll."""
    before = len(site.upstream.hellos)
    os.kill(site.worker_pid(), signal.SIGKILL)
    site.upstream.until(lambda: len(site.upstream.hellos) > before, "next worker")
    site.linked()


def test_a_run_survives_the_worker_and_its_status_is_kept(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("echo begin; while [ ! -e go ]; do sleep 0.05; done; echo end; exit 5"))
    pid = site.upstream.started(key).pid
    assert pid is not None
    kill_worker(site)
    assert key in site.upstream.rolls[-1].runs
    assert is_alive(pid)
    (site.work / "go").touch()
    report = site.upstream.ended(key)
    assert (report.outcome, report.exit_code, report.pid) == (Outcome.FAILED, 5, pid)
    assert report.cpu is not None and report.max_rss
    assert site.output(key.job) == b"begin\nend\n"


def test_the_status_of_a_run_that_ended_while_no_worker_lived_is_kept(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.01; done; exit 9"))
    pid = site.upstream.started(key).pid
    assert pid is not None
    worker = site.worker_pid()
    os.kill(worker, signal.SIGSTOP)  # it cannot notice the end
    (site.work / "go").touch()
    until(lambda: not is_alive(pid), what="end of the run")
    os.kill(worker, signal.SIGKILL)
    report = site.upstream.ended(key)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 9)


def test_limits_are_kept_over_a_worker(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("sleep 1000 & setsid sleep 1000 & sleep 1000", time_limit=2.0, grace=1.0))
    site.upstream.started(key)
    kill_worker(site)
    report = site.upstream.ended(key)
    assert report.outcome is Outcome.TIMEOUT
    assert report.started is not None and report.at - report.started > 1.9


def test_queued_orders_and_stops_survive_the_worker(site: ExecSite) -> None:
    keys = site.upstream.start(*[site.spec("while [ ! -e go ]; do sleep 0.05; done; echo x >> ran") for _ in range(7)])
    for key in keys[:4]:
        site.upstream.started(key)
    kill_worker(site)
    assert set(keys) <= set(site.upstream.rolls[-1].runs)
    (site.work / "go").touch()
    for key in keys:
        assert site.upstream.ended(key).outcome is Outcome.OK
    assert (site.work / "ran").read_text() == "x\n" * 7


def test_killed_over_and_over_each_job_runs_once(site: ExecSite) -> None:
    keys = site.upstream.start(*[site.spec(f"echo {n} >> ran; sleep 0.05") for n in range(60)])
    for _ in range(4):
        done = sum(1 for report in site.upstream.reports if report.kind is RunKind.ENDED)
        site.upstream.until(lambda done=done: sum(1 for each in site.upstream.reports if each.kind is RunKind.ENDED) >= min(done + 6, 60), "progress")
        kill_worker(site)
    reports = [site.upstream.ended(key, 60) for key in keys]
    lost = [report for report in reports if report.outcome is Outcome.LOST]
    assert all(report.outcome is Outcome.OK for report in reports if report not in lost)
    assert all("at the very moment of its start" in report.reason for report in lost)
    ran = sorted(int(line) for line in (site.work / "ran").read_text().split())
    assert len(ran) == len(set(ran))
    assert len(ran) >= 60 - len(lost)


def test_reports_wait_in_the_spool_until_they_are_recorded(site: ExecSite) -> None:
    site.upstream.is_recording = False
    report = site.run("exit 3")
    kill_worker(site)
    assert report.key in site.upstream.rolls[-1].runs
    site.upstream.reports.clear()
    site.upstream.is_recording = True
    kill_worker(site)  # on a new link it is told again at once
    assert site.upstream.ended(report.key).exit_code == 3
    until(lambda: site.upstream.ask(PeerAsk()).facts["reports not yet recorded"] == 0, what="an empty spool")  # type: ignore[attr-defined]
    kill_worker(site)
    assert report.key not in site.upstream.rolls[-1].runs


def test_a_silent_user_server_is_dialled_again_and_runs_run_on(tmp_path: Path) -> None:
    site = ExecSite(tmp_path, heartbeat=0.5)
    try:
        (key,) = site.up().upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 4"))
        pid = site.upstream.started(key).pid
        assert pid is not None
        site.upstream.close()
        (site.work / "go").touch()
        until(lambda: not is_alive(pid), what="end of the run")
        site.upstream.come_back()
        site.linked()
        assert site.upstream.ended(key).exit_code == 4
    finally:
        site.close()


def test_a_second_bootstrap_is_adopted_and_dials_the_new_address(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("sleep 1000"))
    site.upstream.started(key)
    from tests.support.execserver import Upstream

    old, other = site.upstream, Upstream(site.user)
    site.upstream = other
    answer = site.bootstrap()
    assert answer["ok"] and answer["adopted"] and answer["pid"] == site.pid
    site.linked()
    assert key in other.rolls[-1].runs
    other.stop(key)
    assert other.ended(key).outcome is Outcome.CANCELLED
    old.close()


def test_the_worker_goes_on_without_its_supervisor(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 6"))
    site.upstream.started(key)
    worker = site.worker_pid()
    os.kill(site.pid, signal.SIGKILL)
    site.pid = worker
    until(lambda: (site.run_dir / "lock").read_text().strip() == str(worker), what="the worker has the lock")
    (site.work / "go").touch()
    assert site.upstream.ended(key).exit_code == 6
    answer = site.bootstrap()
    assert answer["adopted"] and answer["pid"] == worker


def test_terminated_in_good_order_the_supervisor_waits_for_the_runs(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 8"))
    site.upstream.started(key)
    worker = site.worker_pid()
    os.kill(site.pid, signal.SIGTERM)
    until(lambda: not is_alive(worker), what="end of the worker")
    assert is_alive(site.pid)
    (site.work / "go").touch()
    until(lambda: not is_alive(site.pid), what="end of the supervisor")
    assert site.bootstrap()["ok"]
    site.linked()
    assert site.upstream.ended(key).exit_code == 8


def test_told_to_shut_down_it_ends_after_the_last_run(site: ExecSite) -> None:
    from hq.protocol.peers import PeerShutdown

    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done"))
    site.upstream.started(key)
    site.upstream.send(PeerShutdown())
    (site.work / "go").touch()
    assert site.upstream.ended(key).outcome is Outcome.OK
    site.upstream.until(lambda: not is_alive(site.pid), "end of the exec-server")


def test_idle_it_ends(tmp_path: Path) -> None:
    site = ExecSite(tmp_path)
    site.idle = 0.5
    try:
        assert site.bootstrap()["ok"]
        site.upstream.until(lambda: not is_alive(site.pid), "end of the idle exec-server")
    finally:
        site.close()


def test_a_bootstrap_from_inside_a_job_is_no_process_of_that_job(tmp_path: Path) -> None:
    site = ExecSite(tmp_path)
    try:
        assert site.bootstrap(environment={"HQ_RUN": "f" * 24, "HQ_JOB_ID": "1"})["ok"]
        assert b"HQ_RUN" not in Path(f"/proc/{site.pid}/environ").read_bytes()
        secrets = (site.user.seal_key.encode(), site.upstream.exec_secret.encode())
        site.linked()
        for pid in (site.pid, site.worker_pid()):
            for name in ("environ", "cmdline"):
                assert not any(secret in Path(f"/proc/{pid}/{name}").read_bytes() for secret in secrets)
        assert not any(secret.decode() in site.log_text() for secret in secrets)
    finally:
        site.close()


def test_a_start_line_that_does_not_fit_is_answered_with_the_reason(tmp_path: Path) -> None:
    site = ExecSite(tmp_path)
    try:
        for changes in ({"upstreams": []}, {"host": "../x"}, {"slots": "many"}):
            answer = site.bootstrap(**changes)
            assert not answer["ok"] and "start line" in answer["reason"]
    finally:
        site.close()


def test_the_attempt_that_replaces_another_waits_for_its_end(site: ExecSite) -> None:
    from hq.model.runs import StartOrder
    from hq.protocol.runs import RunStart

    spec = site.spec("trap 'sleep 0.3; echo old gone >> order; exit 0' TERM; echo $HQ_ATTEMPT >> order; [ $HQ_ATTEMPT = 2 ] && exit 0; while true; do sleep 0.02; done")
    signed = site.user.sign(spec)
    for attempt in (1, 2):
        site.upstream.send(RunStart(host="alpha", specs={7: signed}, orders=(StartOrder(7, -1, attempt, (0,)),)))
        site.upstream.until(lambda: (site.work / "order").exists(), "first attempt")
    assert site.upstream.ended(AttemptKey(7, -1, 2)).outcome is Outcome.OK
    assert (site.work / "order").read_text() == "1\nold gone\n2\n"


def test_a_supervisor_that_is_stopped_is_waited_for(site: ExecSite) -> None:
    """The worker is killed, its runs are the supervisor's, who is stopped while they end: their zombies keep the truth. Found by `make chaos`."""
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 6"))
    site.upstream.started(key)
    kill_worker(site)
    supervisor = int((site.run_dir / "lock").read_text())
    os.kill(supervisor, signal.SIGSTOP)
    try:
        (site.work / "go").touch()
        end = time.monotonic() + STATUS_GRACE + 1.0
        site.upstream.until(lambda: time.monotonic() > end, "the worker's patience to be over")
        assert site.upstream.find(key, RunKind.ENDED) is None
    finally:
        os.kill(supervisor, signal.SIGCONT)
    report = site.upstream.ended(key)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 6)
