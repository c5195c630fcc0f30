"""The views: hq's contract with analysts. Tables may change with every release; a view changes only with its version.

No view shows a command, a path, an environment or a blob. Within a version columns may be added, none is renamed, removed or
given another meaning. The table `view_info` tells name, version and meaning to whoever has only SQL.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, insert

from hq.db.tables import view_info


class View(NamedTuple):
    """One view. In `select`, {seconds:A,B} is the time from A to B in seconds, {day:A} the UTC day of A."""

    name: str
    version: int
    about: str
    select: str


# The names of the states in the older systems, for a state of ours.
_OLD = (
    "CASE WHEN {0} IN ('held', 'waiting') THEN 'waiting' WHEN {0} = 'starting' THEN 'pending'"
    " WHEN {0} = 'finished' THEN 'finished' ELSE 'running' END"
)

# The liveliest state among the tasks of live job j. Tasks that never left waiting have no row; one that was held or ended out of
# the array's order has.
_LIVE_STATE = """COALESCE((SELECT CASE MIN(CASE t.state WHEN 'running' THEN 1 WHEN 'starting' THEN CASE WHEN t.is_held = 1 THEN 6 ELSE 2 END WHEN 'suspended' THEN 3
    WHEN 'host_lost' THEN 4 WHEN 'waiting' THEN 5 WHEN 'held' THEN 6 END)
    WHEN 1 THEN 'running' WHEN 2 THEN 'starting' WHEN 3 THEN 'suspended' WHEN 4 THEN 'host_lost' WHEN 5 THEN 'waiting'
    WHEN 6 THEN CASE WHEN j.is_held = 0 AND j.cancelled_rest = 0 AND j.task_count > (SELECT COUNT(*) FROM task u WHERE u.job = j.id)
        + (SELECT COUNT(*) FROM task_history u WHERE u.job = j.id) THEN 'waiting' ELSE 'held' END
    END FROM task t WHERE t.job = j.id), CASE WHEN j.is_held = 1 THEN 'held' ELSE 'waiting' END)"""

_USER = "{q}user{q}"

VIEWS: tuple[View, ...] = (
    View(
        "v_job",
        1,
        "Every job, live and ended, once. state: held, waiting, starting, running, suspended, host_lost, finished (of an array the "
        "liveliest of its tasks); old_state: waiting, pending, running, finished; outcome of the ended: ok, failed, cancelled, timeout, "
        "memory, lost, refused. Moments are UTC, wall_seconds from the first start to the end, cpu_seconds over all tasks, max_rss in bytes.",
        f"""SELECT s.*, {_OLD.format("s.state")} AS old_state FROM (
    SELECT j.id AS job, j.{_USER} AS user_name, j.name AS name, j.group_name AS group_name, j.queue AS queue, j.slots AS slots,
        j.priority AS priority, j.is_array AS is_array, j.task_count AS task_count, {_LIVE_STATE} AS state, NULL AS outcome,
        NULL AS exit_code, NULL AS signal_number, j.submitted AS submitted,
        (SELECT MIN(t.started) FROM task t WHERE t.job = j.id) AS started, NULL AS ended,
        NULL AS wall_seconds, NULL AS cpu_seconds, NULL AS max_rss
    FROM job j
    UNION ALL
    SELECT h.id, h.{_USER}, h.name, h.group_name, h.queue, h.slots, h.priority, h.is_array, h.task_count, 'finished', h.outcome,
        h.exit_code, h.signal_number, h.submitted, h.started, h.ended, {{seconds:h.started,h.ended}}, h.cpu_seconds, h.max_rss
    FROM job_history h) s""",
    ),
    View(
        "v_task",
        1,
        "Every task that has ever left waiting, live and ended, at its latest attempt. idx is the array index, -1 for the one task of a "
        "plain job; old_state as in v_job; since: when the state was entered; wall_seconds from start to end. native_id: its job at a batch "
        "system; native_wait_seconds: how long it waited there, from when that took the job to the start (or, if it never started, the end).",
        f"""SELECT s.*, {_OLD.format("s.state")} AS old_state FROM (
    SELECT t.job AS job, t.idx AS idx, t.attempt AS attempt, t.{_USER} AS user_name, t.host AS host, t.slots AS slots,
        CASE WHEN t.is_held = 1 AND t.state = 'starting' THEN 'held' ELSE t.state END AS state,
        t.outcome AS outcome, t.exit_code AS exit_code, t.signal_number AS signal_number, t.since AS since, t.started AS started,
        t.ended AS ended, {{seconds:t.started,t.ended}} AS wall_seconds, t.cpu_seconds AS cpu_seconds, t.max_rss AS max_rss,
        t.native_id AS native_id, {{seconds:t.native_since,COALESCE(t.started, t.ended)}} AS native_wait_seconds
    FROM task t
    UNION ALL
    SELECT h.job, h.idx, h.attempt, h.{_USER}, h.host, h.slots, 'finished', h.outcome, h.exit_code, h.signal_number, h.since, h.started,
        h.ended, {{seconds:h.started,h.ended}}, h.cpu_seconds, h.max_rss, h.native_id, {{seconds:h.native_since,COALESCE(h.started, h.ended)}}
    FROM task_history h) s""",
    ),
    View(
        "v_usage_by_user_day",
        1,
        "What each user's ended tasks used, by the UTC day on which they ended. slot_seconds: slots times time from start to end; "
        "cpu_seconds: user and system time, where it is known.",
        f"""SELECT {{day:h.ended}} AS day, h.{_USER} AS user_name, COUNT(*) AS tasks, SUM(CASE WHEN h.outcome = 'ok' THEN 1 ELSE 0 END) AS tasks_ok,
        COALESCE(SUM(h.slots * {{seconds:h.started,h.ended}}), 0) AS slot_seconds, COALESCE(SUM(h.cpu_seconds), 0) AS cpu_seconds
    FROM task_history h GROUP BY {{day:h.ended}}, h.{_USER}""",
    ),
    View(
        "v_host_load",
        1,
        "The last load samples of each host, as one user's exec-server there saw them. Memory in bytes.",
        f"""SELECT l.host AS host, l.at AS at, l.{_USER} AS user_name, l.load1 AS load1, l.load5 AS load5, l.load15 AS load15, l.cores AS cores,
        l.memory_total AS memory_total, l.memory_free AS memory_free
    FROM host_load l""",
    ),
    View(
        "v_wait_time",
        1,
        "How long each started task waited from the submission of its job to the start of its latest attempt. native_wait_seconds: the part of it "
        "in which a batch system had the task (NULL: none had); the rest is hq's own.",
        f"""SELECT t.job AS job, t.idx AS idx, j.{_USER} AS user_name, j.queue AS queue, j.slots AS slots, j.priority AS priority,
        j.submitted AS submitted, t.started AS started, {{seconds:j.submitted,t.started}} AS wait_seconds,
        {{seconds:t.native_since,t.started}} AS native_wait_seconds
    FROM task_history t JOIN job_history j ON j.id = t.job WHERE t.started IS NOT NULL
    UNION ALL
    SELECT t.job, t.idx, j.{_USER}, j.queue, j.slots, j.priority, j.submitted, t.started, {{seconds:j.submitted,t.started}}, {{seconds:t.native_since,t.started}}
    FROM task_history t JOIN job j ON j.id = t.job WHERE t.started IS NOT NULL
    UNION ALL
    SELECT t.job, t.idx, j.{_USER}, j.queue, j.slots, j.priority, j.submitted, t.started, {{seconds:j.submitted,t.started}}, {{seconds:t.native_since,t.started}}
    FROM task t JOIN job j ON j.id = t.job WHERE t.started IS NOT NULL""",
    ),
    View(
        "v_audit",
        1,
        "Who did what: actor in a role, action, owner of the thing (empty: the instance's), target.",
        "SELECT a.id AS id, a.at AS at, a.actor AS actor, a.role AS role, a.action AS action, a.owner AS owner, a.target AS target FROM audit a",
    ),
)


def view_sql(view: View, dialect: str) -> str:
    """The CREATE VIEW statement for a dialect's name."""
    is_sqlite = dialect == "sqlite"
    text = view.select.replace("{q}", '"' if is_sqlite else "`")
    while (at := text.find("{")) >= 0:
        kind, _, names = text[at + 1 : text.index("}", at)].partition(":")
        first, _, second = names.partition(",")
        if kind == "seconds":
            made = (
                f"ROUND((julianday({second}) - julianday({first})) * 86400, 3)"
                if is_sqlite
                else f"ROUND(TIMESTAMPDIFF(MICROSECOND, {first}, {second}) / 1000000, 3)"
            )
        else:
            assert kind == "day"
            made = f"date({first})"
        text = text[:at] + made + text[text.index("}", at) + 1 :]
    return f"CREATE VIEW {view.name} AS {text}"


def create_views(connection: Connection) -> None:
    """Make all views and say so in `view_info`."""
    for view in VIEWS:
        connection.exec_driver_sql(view_sql(view, connection.dialect.name))
    connection.execute(view_info.delete())
    connection.execute(insert(view_info), [{"name": view.name, "version": view.version, "about": view.about} for view in VIEWS])


def drop_views(connection: Connection) -> None:
    """Remove all views that are there."""
    for view in VIEWS:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {view.name}")
