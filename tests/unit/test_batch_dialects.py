"""Every batch system against one contract, and its parsers on what real ones printed (tests/golden)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import RefusedError
from hq.execserver.backends.dialect import CommandResult, Demand, Dialect, NativeState, Submission, clock, native_time, plain_name
from hq.execserver.backends.slurm import OUTCOMES, STATES, Slurm
from hq.execserver.backends.torque import EXITS, OpenPbs, Torque, dialect_of
from hq.model.batch import BatchSettings
from hq.model.states import Outcome

GOLDEN = Path(__file__).parents[1] / "golden"
DIALECTS: list[Dialect] = [Slurm(), Torque(), OpenPbs()]


def recorded(system: str, name: str) -> CommandResult:
    folder = GOLDEN / system
    return CommandResult(int((folder / f"{name}.rc").read_text()), (folder / f"{name}.out").read_text(), (folder / f"{name}.err").read_text())


def submission(count: int = 1, settings: BatchSettings | None = None, **demand: object) -> Submission:
    return Submission(
        tag="hq-0123abcd", name="my job", script="/home/alice/x/job.sh", directory="/home/alice/x", output="/home/alice/x/native.out",
        count=count, demand=Demand(**demand), settings=settings or BatchSettings(),  # type: ignore[arg-type]
    )  # fmt: skip


# --- the contract -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
class TestContract:
    def test_a_submission_names_tag_script_output_and_count(self, dialect: Dialect) -> None:
        argv = dialect.submit_argv(submission(7, slots=3, memory=1 << 30, time=600.0))
        assert argv[-1] == "/home/alice/x/job.sh"
        text = " ".join(argv)
        for word in ("hq-0123abcd", "/home/alice/x/native.out", "0-6", "1024", "my_job"):
            assert word in text, (word, argv)

    def test_a_single_task_is_no_array(self, dialect: Dialect) -> None:
        assert not {"-t", "-J", "--array=0-0"} & set(dialect.submit_argv(submission()))

    def test_settings_become_options(self, dialect: Dialect) -> None:
        settings = BatchSettings(partition="fast", account="proj", extra=("--xyz=1",), resources={"licence": "lic={count}"})
        text = " ".join(dialect.submit_argv(submission(1, settings, resources=(("licence", 2),))))
        for word in ("fast", "proj", "--xyz=1", "lic=2"):
            assert word in text

    def test_gpus_and_nodes_are_asked_for(self, dialect: Dialect) -> None:
        text = " ".join(dialect.submit_argv(submission(slots=4, resources=(("gpu", 2), ("nodes", 2)))))
        assert "gpu" in text and ("nodes=2" in text or "select=2" in text)

    def test_what_cannot_be_said_is_refused(self, dialect: Dialect) -> None:
        with pytest.raises(RefusedError, match="licence"):
            dialect.submit_argv(submission(resources=(("licence", 1),)))

    @pytest.mark.parametrize(("settings", "demand", "word"), [
        (BatchSettings(max_cores=4), {"slots": 5}, "max_cores"),
        (BatchSettings(max_memory=1 << 20), {"memory": 1 << 21}, "max_memory"),
        (BatchSettings(max_time=60), {"time": 61.0}, "max_time"),
        (BatchSettings(max_nodes=1), {"slots": 2, "resources": (("nodes", 2),)}, "max_nodes"),
    ])  # fmt: skip
    def test_the_limits_of_the_site_hold(self, dialect: Dialect, settings: BatchSettings, demand: dict[str, object], word: str) -> None:
        with pytest.raises(RefusedError, match=word):
            dialect.submit_argv(submission(1, settings, **demand))

    def test_ids_are_in_every_order(self, dialect: Dialect) -> None:
        for argv in (dialect.cancel_argv(["1", "2"]), dialect.hold_argv(["1", "2"]), dialect.release_argv(["1", "2"]), dialect.signal_argv(["1", "2"], 10)):
            assert argv[-2:] == ["1", "2"]

    def test_no_answer_means_nothing(self, dialect: Dialect) -> None:
        silent = CommandResult(None, "", "")
        assert dialect.parse_query(silent) is None
        assert dialect.parse_final(silent) is None
        assert dialect.parse_found(silent, "hq-1") == (False, "")
        assert dialect.is_transient(silent)

    def test_nonsense_is_no_id(self, dialect: Dialect) -> None:
        for text in ("", "\n", "error", "welcome to the centre\n"):
            with pytest.raises(ValueError, match="job id"):
                dialect.parse_submitted(CommandResult(0, text, ""))

    def test_a_notice_of_the_site_is_no_listing_and_silence_is_an_empty_one(self, dialect: Dialect) -> None:
        for text in ("the cluster is closed for repair\n", "Wartung \ufffd ab 18 Uhr\n*** bitte | beachten|||\n" * 1000):
            assert dialect.parse_query(CommandResult(0, text, "")) is None
            assert dialect.parse_found(CommandResult(0, text, ""), "hq-1") == (False, "")

    def test_words_of_the_site_before_the_id_do_no_harm(self, dialect: Dialect) -> None:
        assert dialect.parse_submitted(CommandResult(0, "Welcome!\n42\n", "")) == "42"

    def test_an_element_of_an_array_has_a_name(self, dialect: Dialect) -> None:
        whole = "7" if dialect.name == "slurm" else "7[].srv"
        assert dialect.element_id(whole, 3, 5) in ("7_3", "7[3].srv")
        assert dialect.element_id("7", 0, 1) == "7"


# --- Slurm --------------------------------------------------------------------------------------------------------


def test_slurm_listing_of_a_real_cluster() -> None:
    jobs = Slurm().parse_query(recorded("slurm", "squeue_hq"))
    assert jobs is not None
    shown = {id: (job.state, job.exit_code, job.signal, job.reason) for id, job in jobs.items()}
    assert shown["6"] == (NativeState.ENDED, 7, None, "NonZeroExitCode")
    assert shown["7"] == (NativeState.ENDED, 0, None, "")
    assert shown["8"][:3] == (NativeState.ENDED, None, 9) and jobs["8"].outcome is None
    assert shown["9"][0] is NativeState.PENDING and shown["9"][3] == "JobHeldUser"
    assert shown["10_0"][0] is NativeState.RUNNING and jobs["10_0"].nodes == "n1"
    assert shown["10_2"][0] is NativeState.PENDING and jobs["10_2"].reason == "JobArrayTaskLimit"
    assert jobs["10_2"].tag == "hq-tag-2" and jobs["6"].tag == ""


def test_slurm_finds_an_array_by_its_tag() -> None:
    assert Slurm().parse_found(recorded("slurm", "squeue_hq"), "hq-tag-2") == (True, "10")
    assert Slurm().parse_found(recorded("slurm", "squeue_hq"), "hq-tag-3") == (True, "")
    assert Slurm().parse_found(recorded("slurm", "down_squeue"), "hq-tag-2") == (False, "")


def test_slurm_ids() -> None:
    assert Slurm().parse_submitted(recorded("slurm", "sbatch_parsable")) == "3"
    assert Slurm().parse_submitted(CommandResult(0, "12;cluster2\n", "")) == "12"


@pytest.mark.parametrize(("name", "transient"), [("down_sbatch", True), ("sbatch_badpart", False), ("sbatch_badopt", False), ("sbatch_badgres", False)])
def test_slurm_refusals_keep_its_own_words(name: str, transient: bool) -> None:
    result = recorded("slurm", name)
    assert Slurm().is_transient(result) is transient
    assert result.words in " ".join(result.err.split())


def test_slurm_accounting() -> None:
    text = "4|FAILED|7:0|None|n1\n5|FAILED|0:9|None|n1\n6|CANCELLED by 1001|0:0|None|n2\n8_1|TIMEOUT|0:0|None|n1\n9|OUT_OF_MEMORY|0:125|None|n1\n7|NODE_FAIL|0:0|None|n1\n"
    jobs = Slurm().parse_final(CommandResult(0, text, ""))
    assert jobs is not None
    assert (jobs["4"].exit_code, jobs["5"].signal) == (7, 9)
    assert [jobs[id].outcome for id in ("6", "8_1", "9", "7")] == [Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.MEMORY, Outcome.LOST]
    assert Slurm().parse_final(CommandResult(1, "", "Slurm accounting storage is disabled\n")) is None


def test_every_slurm_state_that_ends_has_a_meaning() -> None:
    ended = {word for word, state in STATES.items() if state is NativeState.ENDED}
    assert ended - set(OUTCOMES) == {"COMPLETED", "FAILED"}


def test_a_state_of_a_later_slurm_concludes_nothing() -> None:
    line = recorded("slurm", "squeue_hq").out.splitlines()[0].replace("COMPLETED", "EXPEDITED")
    jobs = Slurm().parse_query(CommandResult(0, line, ""))
    assert jobs is not None and [job.state for job in jobs.values()] == [NativeState.UNKNOWN]


# --- Torque and OpenPBS -------------------------------------------------------------------------------------------


def test_torque_listing_of_a_real_server() -> None:
    jobs = Torque().parse_query(recorded("torque", "qstat_after_x"))
    assert jobs is not None
    assert (jobs["0.trq"].exit_code, jobs["2.trq"].exit_code, jobs["3.trq"].signal) == (3, 7, 9)
    assert jobs["4.trq"].outcome is Outcome.CANCELLED and jobs["10.trq"].outcome is Outcome.TIMEOUT
    assert jobs["6.trq"].state is NativeState.PENDING and "held" in jobs["6.trq"].reason
    running = Torque().parse_query(recorded("torque", "qstat_x_job"))
    assert running is not None and running["4.trq"].state is NativeState.RUNNING and running["4.trq"].nodes == "trq/0"


def test_torque_tag_is_in_its_variables() -> None:
    text = recorded("torque", "qstat_x_job").out.replace("SLEEP=300", "HQ_BATCH=hq-77")
    assert Torque().parse_found(CommandResult(0, text, ""), "hq-77") == (True, "4.trq")
    array = text.replace("4.trq", "4[2].trq")
    assert Torque().parse_found(CommandResult(0, array, ""), "hq-77") == (True, "4[].trq")


def test_an_empty_queue_of_torque_is_an_answer() -> None:
    assert Torque().parse_query(CommandResult(0, "", "")) == {}
    assert Torque().parse_query(recorded("torque", "down_qstat_x")) is None


@pytest.mark.parametrize(("system", "name", "transient"), [
    ("torque", "down_qsub", True), ("torque", "qsub_badqueue", False), ("torque", "qsub_badres", False), ("torque", "qsub_overlimit", False),
    ("torque", "qsub_root", False), ("openpbs", "down_qsub", True), ("openpbs", "qsub_badqueue", False), ("openpbs", "qsub_overlimit", False),
])  # fmt: skip
def test_pbs_refusals(system: str, name: str, transient: bool) -> None:
    dialect = Torque() if system == "torque" else OpenPbs()
    assert dialect.is_transient(recorded(system, name)) is transient


def test_openpbs_listing_of_a_real_server() -> None:
    jobs = OpenPbs().parse_query(recorded("openpbs", "qstat_x_json"))
    assert jobs is not None
    assert (jobs["0.pbs"].exit_code, jobs["1.pbs"].exit_code, jobs["3.pbs"].signal) == (3, 0, 9)
    assert jobs["8.pbs"].reason.startswith("Not Running: Not enough") and "Can Never Run" in jobs["13.pbs"].reason
    assert jobs["16.pbs"].state is NativeState.ENDED and jobs["16.pbs"].exit_code is None
    elements = OpenPbs().parse_query(recorded("openpbs", "qstat_array_json"))
    assert elements is not None and elements["5[0].pbs"].state is NativeState.ENDED


def test_the_dialect_is_betrayed_by_the_version() -> None:
    settings = BatchSettings()
    assert dialect_of(settings, recorded("openpbs", "qstat_version")).name == "openpbs"
    assert dialect_of(settings, recorded("torque", "qstat_version")).name == "torque"
    assert dialect_of(BatchSettings(dialect="openpbs"), None).name == "openpbs"


def test_server_words_have_outcomes() -> None:
    assert EXITS[-11][0] is EXITS[-29][0] is Outcome.TIMEOUT


# --- small things -------------------------------------------------------------------------------------------------


def test_native_time_is_a_little_longer_and_never_too_long() -> None:
    assert native_time(Demand(time=90.0), BatchSettings()) == 180
    assert native_time(Demand(time=90.0), BatchSettings(max_time=120)) == 120
    assert native_time(Demand(), BatchSettings(default_time=77)) == 77
    assert native_time(Demand(), BatchSettings()) is None


def test_clock_and_names() -> None:
    assert clock(90061) == "25:01:01"
    assert plain_name("my job;rm", 15) == "my_job_rm"
    assert plain_name("7 up", 15) == "j7_up"
