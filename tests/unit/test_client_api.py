"""hq.client.api: submissions in a pipeline, refusals in their place, connections that break, waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.client.api import WINDOW, Client
from hq.errors import RefusedError, UnavailableError, UsageError
from hq.model.rows import JobCounts
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import JobAsk, JobProgress, JobSubmitted, JobWatch, SubmittedItem
from tests.support.fakeuserserver import Stage, stage


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


class Server:
    """Accepts jobs by their keys, each once; what `odd` says to the n-th message comes before that."""

    def __init__(self, odd: dict[int, Message | None] | None = None) -> None:
        self.odd = odd or {}
        self.calls = 0
        self.ids: dict[str, int] = {}
        self.asks: list[JobAsk] = []

    def __call__(self, message: Message) -> list[Message | None]:
        if isinstance(message, JobWatch):
            named = [each for first, last in message.selection.ranges for each in range(first, last + 1)]
            return [JobProgress(jobs=tuple(JobCounts(each, {"finished": 1, "finished:failed": 1}, True, each % 3) for each in named), is_done=True)]
        assert isinstance(message, JobAsk)
        self.calls += 1
        self.asks.append(message)
        if self.calls in self.odd:
            return [self.odd[self.calls]]
        id = self.ids.setdefault(message.key, len(self.ids) + 1)
        return [JobSubmitted(items=(SubmittedItem(f"{message.key}-0", id, 1),))]


def test_many_jobs_get_their_ids_in_order(here: Stage) -> None:
    with here.serve(Server()), Client() as hq:
        jobs = [hq.submit(["/bin/echo", str(number)]) for number in range(WINDOW + 100)]
        assert jobs[0].id == 1 and jobs[-1].id == WINDOW + 100
    assert [job.id for job in jobs] == list(range(1, WINDOW + 101))


def test_options_are_those_of_hq_submit(here: Stage) -> None:
    server = Server()
    with here.serve(server), Client() as hq:
        hq.submit("echo a b", slots=2, memory="2G", array="1-9%3", env=["A=1"], hold=True, hosts=["n1", "n2"], rerunnable=False, name=None)
        with pytest.raises(UsageError, match="--colour"):
            hq.submit("true", colour="red")
        with pytest.raises(UsageError, match="slots"):
            hq.submit("true", slots=0)
    (ask,) = server.asks
    (job,) = ask.jobs
    assert (job.is_shell, job.argv, job.slots, job.memory, job.indices) == (True, (b"echo a b",), 2, 2 << 30, "1-9")
    assert (job.wishes.throttle, job.wishes.is_held, job.wishes.hosts, job.is_rerunnable) == (3, True, ("n1", "n2"), False)
    assert b"A=1" in job.env


def test_a_refusal_belongs_to_its_job_and_shows_at_the_end(here: Stage) -> None:
    server = Server({2: Problem(text="no host has 99 slots")})
    with here.serve(server), pytest.raises(RefusedError, match="99 slots"), Client() as hq:
        jobs = [hq.submit(["true"]) for _ in range(3)]
        assert [jobs[0].id, jobs[2].id] == [1, 2]
        with pytest.raises(RefusedError, match="99 slots"):
            print(jobs[1].id)
        hq.flush()
        hq.submit(["true"])
        server.odd = {5: Problem(text="no host has 99 slots")}
        hq.submit(["true"])


def test_a_connection_that_breaks_loses_and_doubles_nothing(here: Stage) -> None:
    # the third is taken, but its answer is lost; the fake one hangs up on those behind it
    server = Server({3: None, 7: None})
    with here.serve(server), Client() as hq:
        jobs = [hq.submit(["/bin/echo", str(number)]) for number in range(50)]
        hq.flush()
    assert sorted(server.ids.values()) == list(range(1, 51))
    assert [job.id for job in jobs] == [server.ids[key] for key in dict.fromkeys(ask.key for ask in server.asks)]


def test_a_connection_that_always_breaks_is_given_up(here: Stage) -> None:
    with here.serve(lambda message: [None]), Client() as hq:
        job = hq.submit(["true"])
        with pytest.raises(UnavailableError, match="again and again"):
            print(job.id)
        hq._open.clear()


def test_a_job_that_is_kept_has_no_id_yet(here: Stage) -> None:
    kept = JobSubmitted(items=(SubmittedItem("k", 0, 0),), kept="kept in /spool until hq-server is back")
    with here.serve(Server({1: kept})), Client() as hq:
        job = hq.submit(["true"])
        assert job.note.startswith("kept in /spool")
        with pytest.raises(UnavailableError, match="no id yet"):
            print(job.id)


def test_waiting_tells_how_each_ended(here: Stage) -> None:
    with here.serve(Server()), Client() as hq:
        jobs = [hq.submit(["false"]) for _ in range(4)]
        assert hq.wait(jobs) == 2
    assert [job.exit_code for job in jobs] == [1, 2, 1, 1]
    assert jobs[0].tasks == {"finished": 1, "finished:failed": 1}
