"""A real Slurm whose commands, clocks and disks are not as they should be: submissions accepted twice, notices instead of listings, pilots that
squeue has forgotten, nodes an hour off, an end that cannot be written down."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hq.model.states import Outcome, RunKind
from tests.support.batchsite import WAITS, BatchSite, MakeSite
from tests.support.slurm import SlurmCluster, missing_for_slurm

if missing_for_slurm():
    pytest.skip(f"not here: {missing_for_slurm()}", allow_module_level=True)

#: A Python of the nodes whose clock is so many seconds off.
OTHER_CLOCK = """#!{python}
import sys, time
real, words = time.time, sys.argv[1:]
time.time = lambda: real() + {skew}
at = words.index("-c")
code, sys.argv = words[at + 1], ["-c", *words[at + 2:]]
exec(code)
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A file system of 2 MB; gives a function that fills it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(folder)], check=True)

    def fill() -> None:
        fd = os.open(folder / "fill", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
        os.close(fd)

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def ids_of(slurm: SlurmCluster, states: str) -> set[str]:
    return set(slurm.run("squeue", "-h", "--array", "-t", states, "-o", "%i").split())


def test_of_a_submission_that_was_accepted_twice_the_one_that_begins_counts_and_the_other_is_cancelled(make: MakeSite, slurm: SlurmCluster) -> None:
    site = make({"sbatch": '{sbatch} "$@" >/dev/null; exec {sbatch} "$@"\n'})
    keys = site.start_array("echo x >>count; sleep 2; exit $((HQ_ARRAY_INDEX == 2))", 3)
    reports = [site.upstream.ended(key, 40) for key in keys]
    assert [report.exit_code for report in reports] == [0, 0, 1], reports
    assert (site.work / "count").read_text() == "x\n" * 3
    assert all(report.native is not None and report.native.id for report in reports)
    site.upstream.until(lambda: not ids_of(slurm, "PD,R"), "the second jobs to go")


def test_a_second_acceptance_that_waits_is_cancelled_and_cancelling_reaches_the_one_that_began(make: MakeSite, slurm: SlurmCluster) -> None:
    site = make({"sbatch": '{sbatch} "$@" >/dev/null; exec {sbatch} "$@"\n'})
    (key,) = site.upstream.start(site.spec("exec sleep 100", slots=16, resources={"nodes": 2}))
    site.upstream.started(key)
    site.upstream.until(lambda: len(ids_of(slurm, "PD,R")) == 1, "the second one to be cancelled")
    site.upstream.stop(key)
    assert site.upstream.ended(key).outcome is Outcome.CANCELLED
    site.upstream.until(lambda: not ids_of(slurm, "PD,R"), "the one that began to be cancelled")


def test_an_answer_that_comes_too_late_and_a_squeue_that_is_blind_for_a_while_run_nothing_twice(make: MakeSite) -> None:
    site = make({
        "sbatch": 'mkdir {tools}/first 2>/dev/null && {{ {sbatch} "$@" >{tools}/answer; exec sleep 100; }}\nexec {sbatch} "$@"\n',
        "squeue": 'echo >>{tools}/asked; [ $(wc -l <{tools}/asked) -lt 4 ] && exit 0\nexec {squeue} "$@"\n',
    }, command_timeout=1.5)  # fmt: skip
    keys = site.start_array("echo x >>count; sleep 4", 2)
    reports = [site.upstream.ended(key, 40) for key in keys]
    assert [report.outcome for report in reports] == [Outcome.OK] * 2 and (site.work / "count").read_text() == "x\n" * 2, reports
    assert [report.native and report.native.id.partition("_")[2] for report in reports] == ["0", "1"]


def test_a_full_disk_below_the_home_leaves_nothing_behind_and_loses_no_exit_code(make: MakeSite, tmp_path: Path) -> None:
    home = tmp_path / "site0" / "home"
    home.mkdir(parents=True)
    with small_disk(home) as fill:
        site = make()
        (runs,) = site.upstream.start(site.spec(f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; exit 5"))
        site.upstream.started(runs)
        fill()
        (late,) = site.upstream.start(site.spec("true"))
        report = site.upstream.ended(late)
        assert report.kind is RunKind.NEVER_STARTED and "No space left on device" in report.reason
        (tmp_path / "go").touch()
        report = site.upstream.ended(runs, 40)
        assert (report.outcome, report.exit_code) == (Outcome.FAILED, 5), report
        site.upstream.until(lambda: not site.folders(), "the directories of submissions to go", 40)


def test_a_kill_for_slurms_own_memory_limit_is_memory(tmp_path: Path) -> None:
    more = "JobAcctGatherType=jobacct_gather/linux\nJobAcctGatherParams=OverMemoryKill\nJobAcctGatherFrequency=task=1"
    with SlurmCluster(nodes=1, more=more) as slurm:
        site = BatchSite(tmp_path / "site", "slurm", extra=["--mem=60M"], environment={"SLURM_CONF": str(slurm.conf)})
        try:
            report = site.up().run("head -c 300m /dev/zero | tail | sleep 60", timeout=40)
            assert report.outcome is Outcome.MEMORY and "ran into its memory limit at slurm:alpha (" in report.reason, report
        finally:
            site.close()


def test_a_pilot_that_squeue_has_forgotten_runs_on_while_it_is_heard(make: MakeSite) -> None:
    site = make({"squeue": '[ -e {tools}/blind ] && echo >>{tools}/blind && exit 0\nexec {squeue} "$@"\n', "sacct": "exit 0\n"}, mode="pilot", pilot_slots=4, pilot_limit=1, pilot_idle=2.0)
    (key,) = site.upstream.start(site.spec(WAITS))
    site.upstream.started(key)
    (site.tools / "blind").touch()
    site.upstream.until(lambda: (site.tools / "blind").stat().st_size > 4, "squeue to show nothing again and again", 60)
    (site.work / "go").touch()
    assert site.upstream.ended(key, 40).outcome is Outcome.OK


@pytest.mark.parametrize(("mode", "skew"), [("forward", 3600), ("forward", -3600), ("pilot", 3600)])
def test_the_clocks_of_nodes_are_not_believed(make: MakeSite, tmp_path: Path, mode: str, skew: int) -> None:
    python = tmp_path / "python"
    python.write_text(OTHER_CLOCK.format(python=sys.executable, skew=skew))
    python.chmod(0o755)
    before = time.time()
    site = make(python=str(python), mode=mode, pilot_slots=4, pilot_limit=1, pilot_idle=2.0)
    report = site.run("sleep 1", timeout=40)
    told = [each for each in site.upstream.reports if each.kind is RunKind.STARTED]
    assert report.started is not None and {each.started for each in told} == {report.started}
    assert before < report.started <= report.at < time.time()
    # a pilot's clock is known the better the more it has said: its first word may have come later than its last
    assert mode == "pilot" or report.at - report.started > 0.9
    assert "waited there 1:0" not in report.reason


def test_notices_of_the_site_do_no_harm_beside_an_answer_and_are_none_by_themselves(make: MakeSite) -> None:
    notice = "printf '\\377 Wartung \\303\\244b 18 Uhr\\n'; head -c 300000 /dev/zero | tr '\\0' x; echo; printf 'a|b|||\\n\\n'\n"
    silent = "[ -e {tools}/maintenance ] && exit 0\n"
    site = make({name: notice + (silent if name == "squeue" else "") + f'exec {{{name}}} "$@"\n' for name in ("sbatch", "squeue", "scancel")}
                | {"sacct": notice}, unknown_after=1.5)  # fmt: skip
    ends, stopped = site.upstream.start(site.spec(f"{WAITS}; exit 3"), site.spec("exec sleep 100"))
    site.upstream.started(ends)
    site.upstream.started(stopped)
    site.upstream.stop(stopped)
    assert site.upstream.ended(stopped).outcome is Outcome.CANCELLED
    (site.tools / "maintenance").touch()
    assert "Wartung" in site.waits(ends, "does not answer")
    (site.work / "go").touch()
    assert site.upstream.ended(ends, 40).exit_code == 3


def test_a_job_that_waits_for_ever_keeps_no_array_back(make: MakeSite) -> None:
    site = make({"sbatch": 'mkdir {tools}/first 2>/dev/null && exec {sbatch} --hold "$@"\nexec {sbatch} "$@"\n'}, max_pending=4)
    (held,) = site.upstream.start(site.spec("true"))
    site.waits(held, "JobHeldUser")
    assert [site.upstream.ended(key, 40).outcome for key in site.start_array("true", 6)] == [Outcome.OK] * 6
