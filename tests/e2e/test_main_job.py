"""The main job: an ordinary user's commands run on real hosts under his uid, on SQLite and on MariaDB."""

from __future__ import annotations

import pwd
from typing import Any

from tests.support.site import Site
from tests.support.wait import until


def test_jobs_of_one_account_run_on_two_ssh_hosts_under_its_uid(site: Site) -> None:
    jobs = {host: site.submit("alice", "-H", host, "id -u; hostname; echo $HQ_HOST") for host in ("node1", "node2")}
    for host, job in jobs.items():
        row = site.wait_for("alice", job)
        assert (row["outcome"], row["exit_code"], row["host"], row["user"]) == ("ok", 0, host, "alice"), row
        said = site.client("alice", "log", job).ok().out.split()
        assert said == [str(pwd.getpwnam("alice").pw_uid), host, host]


def test_a_host_that_is_reachable_by_ssh_only_runs_jobs_and_the_log_comes_back(site: Site) -> None:
    job = site.submit("alice", "-H", "far", "hostname")
    assert site.wait_for("alice", job)["outcome"] == "ok"
    assert site.client("alice", "log", job).ok().out == "far\n"
    links = {row["name"]: row for row in site.client("alice", "hosts", "--json").ok().json["rows"]}
    assert "alive" in links["far"]["link"]


def tasks_of(site: Site, job: str) -> list[dict[str, Any]]:
    """The rows of an array's tasks."""
    rows: list[dict[str, Any]] = site.client("alice", "jobs", job, "--tasks", "--json").ok().json["rows"]
    return rows


def test_an_array_spreads_over_the_hosts_and_counts_add_up(site: Site) -> None:
    job = site.submit("alice", "-a", "1-40", "--name", "spread", f"{site.waits}; echo $HQ_ARRAY_INDEX")
    # one host alone may be through with all of them before another one is up
    until(lambda: len({task["host"] for task in tasks_of(site, job) if task["state"] == "running"}) >= 2, 60, "tasks on two hosts")
    site.let_go(job)
    done = site.client("alice", "wait", job, timeout=120)
    assert done.rc == 0, done.err
    row = site.row("alice", job)
    assert row["tasks"]["finished:ok"] == 40
    tasks = tasks_of(site, job)
    assert len(tasks) == 40
    assert len({task["host"] for task in tasks}) >= 2
    assert site.client("alice", "log", f"{job}_17").ok().out == "17\n"


def test_exit_codes_signals_and_limits_become_outcomes(site: Site) -> None:
    wanted = {
        site.submit("alice", "exit 3"): ("failed", 3, None),
        site.submit("alice", "kill -9 $$"): ("failed", None, 9),
        site.submit("alice", "-t", "1", "--grace", "60", "sleep 60"): ("timeout", None, 15),
        site.submit("alice", "no-such-command-anywhere", "x"): ("failed", 127, None),
    }
    for job, (outcome, code, number) in wanted.items():
        row = site.wait_for("alice", job)
        assert (row["outcome"], row["exit_code"], row["signal"]) == (outcome, code, number), row
        assert row["cpu_seconds"] is not None or outcome == "failed"


def test_cancel_ends_a_running_job_wherever_it_runs(site: Site) -> None:
    job = site.submit("alice", "-H", "node2", "sleep 600")
    site.wait_for("alice", job, "running")
    site.client("alice", "cancel", job).ok()
    assert site.wait_for("alice", job)["outcome"] == "cancelled"


def test_a_running_log_is_followed_from_another_host(site: Site) -> None:
    job = site.submit("alice", "-H", "node1", "for i in 1 2 3; do echo line $i; sleep 0.3; done")
    done = site.client("alice", "log", "-f", job)
    assert done.ok().out == "line 1\nline 2\nline 3\n"


def test_wait_returns_the_exit_code_of_the_job(site: Site) -> None:
    assert site.run("alice", "hq-submit", "--wait", "exit 7").rc == 7
    assert site.client("alice", "wait", site.submit("alice", "exit 5")).rc == 5


def test_arguments_environment_and_directory_arrive_exactly(site: Site) -> None:
    words = ["a b", "c'd\"e", "$HOME", "*", "new\nline", ";", "\udcff\udcfe"]
    folder = pwd.getpwnam("alice").pw_dir
    job = site.submit("alice", "python3", "-c", "import os,sys; print(ascii(sys.argv[1:]), os.getcwd(), os.environ['MINE'])", *words,
                      env={"MINE": "x y"}, cwd=folder)  # fmt: skip
    assert site.wait_for("alice", job)["outcome"] == "ok"
    expected = ascii(words)
    assert site.client("alice", "log", job).ok().out == f"{expected} {folder} x y\n"


def test_a_script_is_kept_as_it_was_when_it_was_submitted(site: Site) -> None:
    script = f"{pwd.getpwnam('alice').pw_dir}/kept.sh"
    site.run("alice", "sh", "-c", f"printf '#!/bin/sh\\necho first $1\\n' > {script}").ok()
    job = site.submit("alice", "--hold", "--script", script, "word")
    site.run("alice", "sh", "-c", f"printf 'echo second\\n' > {script}").ok()
    site.client("alice", "release", job).ok()
    site.wait_for("alice", job)
    assert site.client("alice", "log", job).ok().out == "first word\n"


def test_host_states_survive_a_restart_of_the_server_and_running_jobs_do_not_notice(site: Site) -> None:
    job = site.submit("alice", "-H", "node1", f"{site.waits}; echo survived")
    site.wait_for("alice", job, "running")
    site.admin("drain", "node2", "new disk").ok()
    site.admin("shutdown").ok()
    until(lambda: not site._is_up(), what="hq-server to end")
    site.start_server()
    hosts = {row["name"]: row for row in site.client("alice", "hosts", "--json").ok().json["rows"]}
    assert hosts["node2"]["state"] == "draining" and "new disk" in hosts["node2"]["reason"]
    site.let_go(job)
    assert site.wait_for("alice", job)["outcome"] == "ok"
    assert site.client("alice", "log", job).ok().out == "survived\n"
    site.admin("activatehost:node2").ok()


def test_a_host_is_added_and_removed_while_jobs_run(site: Site) -> None:
    job = site.submit("alice", "-H", "node1", site.waits)
    site.wait_for("alice", job, "running")
    site.admin("removehost", "node1").ok()
    assert site.run("alice", "hq-submit", "-H", "node1", "true").rc != 0
    site.let_go(job)
    assert site.wait_for("alice", job)["outcome"] == "ok"
    assert site.hosts is not None
    site.admin("addhost", "node1:2:ssh", f"full_name={site.hosts.address('node1')}").ok()
    again = site.submit("alice", "-H", "node1", "true")
    assert site.wait_for("alice", again)["outcome"] == "ok"


def test_checkhost_proves_each_step(site: Site) -> None:
    done = site.client("alice", "checkhost", "node1")
    assert done.rc == 0, done.out + done.err
    for step in ("login", "python", "version", "way back", "lingering"):
        assert step in done.out


def test_two_users_work_at_once_and_each_sees_only_his_own(site: Site) -> None:
    jobs = {user: site.submit(user, "-a", "1-10", "id -un") for user in ("alice", "bob")}
    for user, job in jobs.items():
        assert site.client(user, "wait", job).rc == 0
        assert site.client(user, "log", f"{job}_3").ok().out == f"{user}\n"
        assert {row["user"] for row in site.rows(user, "all")} == {user}
