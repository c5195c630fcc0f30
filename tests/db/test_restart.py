"""A server that starts again with many waiting and running jobs has them all, and goes on."""

from __future__ import annotations

from sqlalchemy import Engine

from hq.core.cluster import Cluster
from hq.core.events import RollCalled, StopRuns, UserServerCame
from hq.db.store import Store
from hq.model.changes import Changes
from hq.model.host import HostRecord, HostSpec
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.states import TaskState
from hq.model.user import UserRecord
from tests.support.dbrecords import T0, clean, make_job, make_task

INSTANCE = "test-0badcafe"
WAITING, RUNNING, HOSTS = 4000, 200, 4


def test_waiting_and_running_jobs_are_all_there(engine: Engine) -> None:
    clean(engine)
    names = [f"h{number}" for number in range(HOSTS)]
    changes = Changes(settings={"instance": INSTANCE}, users={"alice": UserRecord(name="alice")})
    changes.hosts = {name: HostRecord(spec=HostSpec(name=name, address=name, total=60, slots=60)) for name in names}
    changes.jobs = {id: make_job(id) for id in range(1, WAITING + RUNNING + 1)}
    changes.tasks = {TaskKey(id, PLAIN): make_task(id, host=names[id % HOSTS]) for id in range(1, RUNNING + 1)}
    store = Store(engine)
    store.write(changes)

    cluster = Cluster(INSTANCE, store.load(), T0 + 100)
    cluster.step([UserServerCame(user="alice")], T0 + 101)
    rolls = [
        RollCalled(user="alice", host=name, runs=frozenset(AttemptKey(id, PLAIN, 1) for id in range(1, RUNNING + 1) if names[id % HOSTS] == name))
        for name in names
    ]
    step = cluster.step(rolls, T0 + 102)
    assert not [action for action in step.actions if isinstance(action, StopRuns)], "what runs, runs on"
    running = [task for id in range(1, RUNNING + 1) if (task := cluster.task(TaskKey(id, PLAIN))) and task.state is TaskState.RUNNING]
    assert len(running) == RUNNING
    placed = sum(len(host.tasks) for host in cluster.hosts.values())
    assert placed >= 60 * HOSTS, "free slots are filled from those that wait"
    assert cluster.last_id == WAITING + RUNNING
