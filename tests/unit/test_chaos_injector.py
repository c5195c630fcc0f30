"""What the injector of `make chaos` tells the judge of those that it killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.chaos.inject import Injector
from tests.chaos.plan import Fault


class Processes:
    """A stage with a supervisor and a worker, who are seen in the table of processes for ever."""

    def __init__(self) -> None:
        self.all = {what: subprocess.Popen(["sleep", "60"]) for what in ("--supervise", "--work")}

    def exec_pids(self, host: str, user: str, what: str) -> list[int]:
        return [self.all[what].pid]


@pytest.fixture
def stage() -> Iterator[Processes]:
    made = Processes()
    yield made
    for each in made.all.values():
        each.kill()
        each.wait()


@pytest.mark.parametrize(("kind", "is_last"), [("kill both", [False, True]), ("kill worker", [False])])
def test_a_worker_whose_supervisor_was_killed_a_moment_before_was_the_last_witness(stage: Processes, kind: str, is_last: list[bool]) -> None:
    injector = Injector(cast(Any, stage), lambda text: None)
    assert injector._do(Fault(0.0, kind, 0.0, "h", "u"))
    assert [trouble.is_last for trouble in injector.troubles] == is_last
