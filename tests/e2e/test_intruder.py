"""bob against alice, with bob's own rights on the machine and in hq: nothing of hers may be seen, touched or imitated."""

from __future__ import annotations

import pwd
import stat
from pathlib import Path

import pytest

from tests.support.proc import readable_python
from tests.support.site import Site


@pytest.fixture
def hers(site: Site) -> str:
    """A finished job of alice with a secret in its environment and its output."""
    job = site.submit("alice", "--name", "private", "echo $SECRET", env={"SECRET": "alices-secret-word"})
    site.wait_for("alice", job)
    return job


@pytest.mark.parametrize(
    "words",
    [("job",), ("jobs",), ("details",), ("why",), ("log",), ("cancel",), ("hold",), ("release",), ("requeue",), ("signal", "KILL"), ("wait",),
     ("lajob",)],
    ids=lambda words: words[0],
)  # fmt: skip
def test_her_job_id_is_answered_like_one_that_does_not_exist(site: Site, hers: str, words: tuple[str, ...]) -> None:
    site.submit("bob", "true")  # bob's user-server is up
    verb, *rest = words
    at_hers = site.client("bob", verb, hers, *rest)
    at_nothing = site.client("bob", verb, "999999", *rest)
    assert at_hers.rc == at_nothing.rc != 0 or verb == "jobs"
    assert (at_hers.out + at_hers.err).replace(hers, "N") == (at_nothing.out + at_nothing.err).replace("999999", "N")
    assert "private" not in at_hers.out + at_hers.err


def test_a_running_job_of_hers_goes_on_when_he_cancels_it(site: Site) -> None:
    job = site.submit("alice", site.waits)
    site.wait_for("alice", job, "running")
    site.client("bob", "cancel", job)
    site.let_go(job)
    assert site.wait_for("alice", job)["outcome"] == "ok"


def test_listings_and_searches_show_him_nothing_of_hers(site: Site, hers: str) -> None:
    for words in (("jobs", "all"), ("find", "private"), ("lsfjobs:all",), ("groups",)):
        assert "private" not in site.client("bob", *words).out


def test_he_cannot_reach_her_user_server(site: Site, hers: str) -> None:
    run_dir = Path(f"/var/tmp/hq-{pwd.getpwnam('alice').pw_uid}")
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    tried = site.run("bob", str(readable_python()), "-c", "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])",
                     str(run_dir / site.instance / "client.sock"))  # fmt: skip
    assert tried.rc != 0 and "PermissionError" in tried.err


def test_nobody_else_can_read_her_keys_output_or_the_servers_secrets(site: Site, hers: str) -> None:
    home = Path(pwd.getpwnam("alice").pw_dir)
    secrets = [
        *(home / ".hq" / site.instance / "keys").iterdir(),
        *(home / ".hq" / site.instance / "output" / hers).iterdir(),
        site.etc / "hq-db.cfg",
        *(site.folder / "site" / "var" / "keys").iterdir(),
    ]
    for path in secrets:
        assert site.run("bob", "cat", str(path)).rc != 0, path


def test_he_is_no_administrator(site: Site, hers: str) -> None:
    for words in (("cancel", hers), ("lsjobs",), ("shutdown",), ("disableuser:alice",)):
        done = site.run("bob", "hq-admin", *words)
        assert done.rc == 1 and "private" not in done.out
        assert "admin" in done.err


def test_her_secrets_are_in_no_log_and_not_in_the_database(site: Site, hers: str) -> None:
    everywhere = [*(site.folder / "site").rglob("*"), *Path(f"/var/tmp/hq-{pwd.getpwnam('alice').pw_uid}", site.instance).rglob("*.log*")]
    for path in everywhere:
        if path.is_file():
            assert b"alices-secret-word" not in path.read_bytes(), path


def test_a_client_refuses_an_etc_that_others_may_write(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = site.folder / "open-etc"
    site.run("olga", "cp", "-r", str(site.etc), str(copy)).ok()
    try:
        site.run("olga", "chmod", "o+w", str(copy / "client.yaml")).ok()
        done = site.run("alice", "hq-submit", "true", env={"HQ_ETC": str(copy)})
        assert done.rc == 1 and "chmod" in done.err
    finally:
        site.run("olga", "rm", "-r", str(copy)).ok()


def test_a_disabled_user_is_refused_and_an_enabled_one_goes_on(site: Site) -> None:
    site.admin("disableuser:bob").ok()
    try:
        done = site.run("bob", "hq-submit", "true")
        assert done.rc == 1 and "disabled" in done.err
    finally:
        site.admin("enableuser:bob").ok()
    assert site.wait_for("bob", site.submit("bob", "true"))["outcome"] == "ok"


def test_what_an_administrator_does_to_her_job_is_in_her_audit(site: Site) -> None:
    job = site.submit("alice", "--hold", "true")
    site.admin("cancel", job).ok()
    assert site.row("alice", job)["outcome"] == "cancelled"
    assert any(job in line and "olga" in line for line in site.admin("audit").ok().out.splitlines())
    hers = site.client("alice", "audit", "--json").ok().json["rows"]
    assert any((row["actor"], row["action"], row["owner"]) == ("olga", "cancel", "alice") and job in row["target"] for row in hers), hers
    site.submit("bob", "true")
    assert all(row["owner"] == "bob" for row in site.client("bob", "audit", "--json").ok().json["rows"])
