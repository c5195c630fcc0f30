"""A real exec-server runs jobs: command, environment, exit codes, limits, stops."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.ids import AttemptKey
from hq.model.states import Outcome, RunKind
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


def number_in(site: ExecSite, name: str) -> int:
    """The pid that a job writes to a file."""
    path = site.work / name
    return int(site.upstream.until(lambda: path.exists() and path.read_text(), f"a pid in {name}"))


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


def test_words_are_given_exactly_as_they_are(site: ExecSite) -> None:
    report = site.run("printf", "%s|", "a b", "$HOME", "'x\n;", b"\xff\xfe", "")
    assert report.outcome is Outcome.OK
    assert site.output(report.job) == b"a b|$HOME|'x\n;|\xff\xfe||"


def test_command_not_found_is_127_and_named(site: ExecSite) -> None:
    report = site.run("no-such-command-anywhere", "x")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 127)
    assert "no-such-command-anywhere" in report.reason


def test_a_file_that_is_not_executable_is_126(site: ExecSite) -> None:
    (site.work / "plain.txt").write_text("hello")
    report = site.run("./plain.txt", "x")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 126)


def test_a_missing_directory_is_125_with_its_name(site: ExecSite) -> None:
    report = site.run("true", cwd=b"/no/such/place")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 125)
    assert "/no/such/place" in report.reason and "No such file" in report.reason


def test_an_output_that_cannot_be_written_is_125_with_its_name(site: ExecSite) -> None:
    report = site.run("true", stdout=b"/no/such/dir/out")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 125)
    assert "/no/such/dir/out" in report.reason


def test_path_lookup_uses_the_environment_of_the_job(site: ExecSite) -> None:
    tool = site.work / "bin" / "my-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho tool $1 $GREETING\n")
    tool.chmod(0o755)
    env = site.user.seal(b"\0".join([b"PATH=" + os.fsencode(tool.parent) + b":/bin", b"GREETING=servus"]))
    report = site.run("my-tool", "7", env=env)
    assert site.output(report.job) == b"tool 7 servus\n"


def test_the_variables_of_a_run(site: ExecSite) -> None:
    env = site.user.seal(b"PATH=/bin:/usr/bin\0HQ_ARRAY_INDEX=99\0HQ_JOB_ID=5")
    report = site.run("env", env=env, name="a name")
    got = dict(line.split("=", 1) for line in site.output(report.job).decode().splitlines() if "=" in line)
    assert got["HQ_JOB_ID"] == got["HQ_TASK_ID"] == str(report.job)
    assert "HQ_ARRAY_INDEX" not in got
    assert (got["HQ_ATTEMPT"], got["HQ_SLOTS"], got["HQ_SLOT_IDS"]) == ("1", "1", "0")
    assert (got["HQ_HOST"], got["HQ_USER"], got["HQ_JOB_NAME"]) == ("alpha", "alice", "a name")
    assert (got["HQ_SUBMIT_DIR"], got["HQ_INSTANCE"]) == (str(site.work), site.instance)
    assert len(got["HQ_RUN"]) == 24
    assert not {"HQ_SERVER_DIR", "HQ_OUTPUT_MODE"} & set(got)


def test_an_element_of_an_array_knows_its_index(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("echo $HQ_ARRAY_INDEX $HQ_TASK_ID", indices="1-9", stdout=b"{job}-{index}.txt"), index=7)
    assert site.upstream.ended(key).outcome is Outcome.OK
    assert (site.work / f"{key.job}-7.txt").read_text() == f"7 {key.job}_7\n"


def test_an_index_that_was_not_signed_is_refused(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("touch ran", indices="1-9"), index=10)
    report = site.upstream.ended(key)
    assert report.outcome is Outcome.REFUSED and "signed" in report.reason
    assert not (site.work / "ran").exists()


def test_session_umask_signals_and_descriptors(site: ExecSite) -> None:
    words = "ps -o sid=,pgid=,tty= -p $$; echo $$; umask; ls /proc/self/fd | wc -l; grep -E '^Sig(Ign|Blk)' /proc/self/status; touch made"
    report = site.run(words, umask=0o027)
    lines = site.output(report.job).decode().split("\n")
    sid, pgid, tty = lines[0].split()
    assert sid == pgid == lines[1] == str(report.pid)
    assert tty == "?"
    assert lines[2].strip() == "0027"
    assert lines[3].strip() == "4"  # three streams, and the one by which ls reads the directory
    glibc = 0x1_8000_0000  # its own two signals, which posix_spawn(3) leaves ignored
    assert all(int(line.split()[1], 16) & ~glibc == 0 for line in lines[4:6]), lines
    assert (site.work / "made").stat().st_mode & 0o777 == 0o640
    assert (site.home / site.instance / "output" / str(report.job) / f"{report.job}.out").stat().st_mode & 0o777 == 0o640


def test_stdin_from_a_file_and_none(site: ExecSite) -> None:
    (site.work / "in.txt").write_text("from a file\n")
    assert site.output(site.run("cat", "-", stdin=b"in.txt").job) == b"from a file\n"
    assert site.output(site.run("cat", "-").job) == b""


def test_scripts_with_and_without_a_shebang(site: ExecSite) -> None:
    plain = site.user.seal(b"echo plain $1\n")
    python = site.user.seal(b"#!/usr/bin/env python3\nimport sys; print('python', sys.argv[1:])\n")
    assert site.output(site.run("x", script=plain).job) == b"plain x\n"
    env = site.user.seal(f"PATH={os.environ['PATH']}".encode())
    assert site.output(site.run("a b", script=python, env=env).job) == b"python ['a b']\n"


def test_a_blob_that_nobody_has_means_never_started(site: ExecSite) -> None:
    report = site.run("true", env="0" * 32)
    assert report.kind is RunKind.NEVER_STARTED
    assert "nowhere" in report.reason


def test_an_altered_spec_is_refused(site: ExecSite) -> None:
    from hq.model.job import SignedSpec
    from hq.model.runs import StartOrder
    from hq.protocol.runs import RunStart

    signed = site.user.sign(site.spec("touch stolen"))
    forged = SignedSpec(signed.body.replace(b"stolen", b"forged"), signed.signature)
    site.upstream.send(RunStart(host="alpha", specs={90001: forged}, orders=(StartOrder(90001, -1, 1, (0,)),)))
    report = site.upstream.ended(AttemptKey(90001, -1, 1))
    assert report.outcome is Outcome.REFUSED and "signature" in report.reason
    assert not (site.work / "forged").exists()


def test_another_users_and_another_instances_jobs_are_refused(site: ExecSite) -> None:
    for changes in ({"user": "bob"}, {"instance": "elsewhere-12345678"}):
        assert site.run("true", **changes).outcome is Outcome.REFUSED


def test_the_same_order_twice_runs_once(site: ExecSite) -> None:
    from hq.model.runs import StartOrder
    from hq.protocol.runs import RunStart

    message = RunStart(host="alpha", specs={90002: site.user.sign(site.spec("echo once >> counter"))}, orders=(StartOrder(90002, -1, 1, (0,)),))
    site.upstream.send(message, message)
    site.upstream.ended(AttemptKey(90002, -1, 1))
    site.upstream.send(message)
    assert site.run("true").outcome is Outcome.OK
    assert (site.work / "counter").read_text() == "once\n"


def test_the_time_limit_ends_a_job(site: ExecSite) -> None:
    report = site.run("sleep 1000", time_limit=0.3)
    assert report.outcome is Outcome.TIMEOUT and "time limit" in report.reason


def test_a_stop_ends_the_whole_job_grandchildren_in_other_sessions_too(site: ExecSite) -> None:
    words = "setsid sleep 1000 & echo $! > sid; env -i setsid sh -c 'sleep 1001 & echo $! > scrubbed; wait' & sleep 1002"
    (key,) = site.upstream.start(site.spec(words, grace=5.0))
    pids = [number_in(site, name) for name in ("sid", "scrubbed")]
    site.upstream.stop(key)
    assert site.upstream.ended(key).outcome is Outcome.CANCELLED
    until(lambda: not any(map(is_alive, pids)), what="end of the grandchildren")


def test_who_ignores_term_is_killed_after_the_grace(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("trap '' TERM; touch deaf; while true; do sleep 0.05; done", grace=0.5))
    site.upstream.until((site.work / "deaf").exists, "the trap")
    site.upstream.stop(key)
    report = site.upstream.ended(key)
    assert (report.outcome, report.signal) == (Outcome.CANCELLED, signal.SIGKILL)


def test_a_child_that_cleans_up_has_its_grace_though_the_shell_above_it_died(site: ExecSite) -> None:
    (site.work / "slow.sh").write_text("trap 'sleep 0.4; echo saved > checkpoint; exit 0' TERM\necho up > up\nwhile true; do sleep 0.05; done\n")
    (key,) = site.upstream.start(site.spec("sh slow.sh; true", grace=10.0))
    site.upstream.until((site.work / "up").exists, "start of the child")
    site.upstream.stop(key)
    report = site.upstream.ended(key)
    assert report.outcome is Outcome.CANCELLED
    assert (site.work / "checkpoint").read_text() == "saved\n"


def test_leftovers_are_gone_after_the_end_of_the_main_process(site: ExecSite) -> None:
    report = site.run("sleep 1000 & echo $! > left; setsid sleep 1000 & echo $! > far; sleep 0.1; exit 0")
    assert report.outcome is Outcome.OK
    for name in ("left", "far"):
        pid = int((site.work / name).read_text())
        until(lambda pid=pid: not is_alive(pid), what=f"end of {name}")


def test_leftovers_of_one_run_are_not_those_of_another(site: ExecSite) -> None:
    (other,) = site.upstream.start(site.spec("setsid sleep 1000 & echo $! > others; wait; sleep 1000"))
    pid = number_in(site, "others")
    site.run("setsid sleep 1000 & exit 0")
    site.run("sleep 1.2")  # one look later
    assert is_alive(pid)
    site.upstream.stop(other)
    assert site.upstream.ended(other).outcome is Outcome.CANCELLED
    until(lambda: not is_alive(pid), what="end of the other's child")


def test_the_memory_limit_counts_all_processes(site: ExecSite) -> None:
    eat = "python3 -c \"import time; x = b'x' * (90 << 20); time.sleep(60)\""
    env = site.user.seal(f"PATH={os.environ['PATH']}".encode())
    report = site.run(f"{eat} & {eat} & wait", memory=150 << 20, env=env)
    assert report.outcome is Outcome.MEMORY and "limit of 150M" in report.reason
    assert report.max_rss is not None and report.max_rss > 150 << 20


def test_peak_memory_and_cpu_are_measured(site: ExecSite) -> None:
    env = site.user.seal(f"PATH={os.environ['PATH']}".encode())
    words = "import time; x = b'x' * (200 << 20)\nwhile time.process_time() < 0.3:\n    sum(range(10_000))"
    report = site.run("python3", "-c", words, env=env)
    assert report.max_rss is not None and 200 << 20 < report.max_rss < 300 << 20
    assert report.cpu is not None and 0.25 < report.cpu < 20


def test_the_processor_time_of_processes_that_were_killed_counts(site: ExecSite) -> None:
    # under a shell that ends before it could wait for them
    (site.work / "burn.py").write_text(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile time.process_time() < 0.3:\n    sum(range(10_000))\n"
        "with open('burning', 'w') as file:\n    file.write(str(sum(os.times()[:2])))\nos.rename('burning', 'burnt')\ntime.sleep(600)\n"
    )
    env = site.user.seal(f"PATH={os.environ['PATH']}".encode())
    (key,) = site.upstream.start(site.spec("python3 burn.py; true", grace=0.2, env=env))
    site.upstream.until((site.work / "burnt").exists, "some work")
    site.upstream.stop(key)
    burnt = float((site.work / "burnt").read_text())
    assert burnt > 0.1
    report = site.upstream.ended(key)
    assert report.cpu is not None and report.cpu > burnt - 0.05


def test_suspend_and_resume(site: ExecSite) -> None:
    # no shell that makes a process: one that is stopped between vfork(2) and exec(2) holds its parent, which then never shows as stopped
    (key,) = site.upstream.start(site.spec("exec sleep 1000"))
    started = site.upstream.started(key)
    site.upstream.signal(key, signal.SIGSTOP)
    site.upstream.until(lambda: site.upstream.find(key, RunKind.SUSPENDED), "suspension")
    # the signal was sent; a busy machine takes a moment to stop the process
    until(lambda: Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", what="a stopped process")
    site.upstream.signal(key, signal.SIGCONT)
    site.upstream.until(lambda: site.upstream.find(key, RunKind.RESUMED), "resumption")
    site.upstream.signal(key, signal.SIGSTOP)
    site.upstream.stop(key)
    assert site.upstream.ended(key).outcome is Outcome.CANCELLED


def test_a_stop_before_the_order_means_never(site: ExecSite) -> None:
    from hq.model.runs import StartOrder
    from hq.protocol.runs import RunStart

    key = AttemptKey(90003, -1, 1)
    site.upstream.stop(key)
    assert site.upstream.ended(key).kind is RunKind.NEVER_STARTED
    site.upstream.send(RunStart(host="alpha", specs={90003: site.user.sign(site.spec("touch zombie"))}, orders=(StartOrder(*key, (0,)),)))
    site.run("true")
    assert not (site.work / "zombie").exists()


def test_nice(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e nice ]; do sleep 0.02; done; ps -o ni= -p $$", nice=7))
    site.upstream.started(key)
    (site.work / "nice").touch()
    report = site.upstream.ended(key)
    assert int(site.output(report.job)) == 7 + os.getpriority(os.PRIO_PROCESS, 0)


def test_orders_beyond_the_slots_wait(site: ExecSite) -> None:
    keys = site.upstream.start(*[site.spec("while [ ! -e turn ]; do sleep 0.02; done") for _ in range(9)])
    for key in keys[:4]:
        site.upstream.started(key)
    (site.work / "turn").touch()
    reports = [site.upstream.ended(key) for key in keys]
    moments = sorted([(report.started or 0.0, 1) for report in reports] + [(report.at, -1) for report in reports])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most == 4
