"""Bad input gets a clear line on stderr and exit code 2 or 1; nothing is lost or half done. On real daemons, one host: this machine."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.support.site import Site


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--slotz", "2", "true"), 2, "--slots"),
        (("-E", "nohost", "true"), 2, "nohost"),
        (("-H", "nohost", "true"), 2, "nohost"),
        (("-c", "1000", "true"), 1, "4"),
        (("-c", "0", "true"), 2, "slots"),
        (("-a", "1-1000000000", "true"), 2, "tasks"),
        (("-a", "", "true"), 2, "array"),
        (("-a", "5-1", "true"), 2, "empty"),
        (("-p", "abc", "true"), 2, "abc"),
        (("-p", "999", "true"), 2, "127"),
        (("-m", "lots", "true"), 2, "lots"),
        (("-t", "soon", "true"), 2, "soon"),
        ((), 2, "command"),
        (("-s", "16", "true"), 2, "--slots"),
        (("--script", "/nowhere/script.sh"), 2, "/nowhere/script.sh"),
        (("-f", "/nowhere/jobs"), 2, "/nowhere/jobs"),
        (("--retries", "-1", "true"), 2, "retries"),
        (("x" * 131072,), 2, "--script"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else None,
)
def test_a_bad_submission_says_so_in_one_line_and_leaves_no_job(local_site: Site, words: tuple[str, ...], code: int, says: str) -> None:
    before = local_site.rows("alice", "all")
    # the kernel takes no word of 128 KiB from a shell either: such a command comes by standard input of a script
    if words and len(words[0]) > 100_000:
        words = (words[0][:-2],) * 13
    done = local_site.run("alice", "hq-submit", *words)
    assert (done.rc, says in done.err, done.out) == (code, True, ""), done.err
    assert len(_lines(done.err)) <= 2 and "Traceback" not in done.err
    assert local_site.rows("alice", "all") == before


def test_a_jobs_file_with_bad_lines_names_each_and_submits_nothing(local_site: Site) -> None:
    before = len(local_site.rows("alice", "all"))
    text = "command::true\nslots::many\tcommand::true\n# fine\nnonsense\ncommand::true\tcolour::red\n"
    done = local_site.run("alice", "hq-submit", "-f", "-", stdin=text.encode())
    assert done.rc == 2
    for number in (2, 4, 5):
        assert f"line {number}" in done.err
    assert len(local_site.rows("alice", "all")) == before


@pytest.mark.parametrize(
    ("command", "outcome", "code", "says"),
    [
        (("--chdir", "/nowhere/at/all", "true"), "failed", None, "/nowhere/at/all"),
        (("-o", "/proc/nowhere/out", "true"), "failed", None, "/proc/nowhere/out"),
        (("no-such-program-here", "x"), "failed", 127, "no-such-program-here"),
        (("/etc/passwd", "x"), "failed", 126, "/etc/passwd"),
    ],
    ids=["directory missing", "output unwritable", "command not found", "not executable"],
)
def test_what_only_the_host_can_know_becomes_the_outcome_with_its_reason(
    local_site: Site, command: tuple[str, ...], outcome: str, code: int | None, says: str
) -> None:
    row = local_site.wait_for("alice", local_site.submit("alice", *command))
    assert row["outcome"] == outcome and says in row["reason"], row
    assert code is None or row["exit_code"] == code


def test_a_name_with_newline_quotes_and_semicolon_is_kept_and_shown_on_one_line(local_site: Site) -> None:
    name = "a\nb'c\"d;e\x1b[31m"
    job = local_site.submit("alice", "-n", name, "-o", f"{local_site.folder.parent}/hq-test-{{name}}-{{job}}", "echo x")
    row = local_site.wait_for("alice", job)
    assert row["outcome"] == "ok", row
    listing = local_site.client("alice", "jobs", job).ok().out
    plain = local_site.submit("alice", "true")
    local_site.wait_for("alice", plain)
    assert len(_lines(listing)) == len(_lines(local_site.client("alice", "jobs", plain).ok().out))
    assert "\x1b" not in listing and "a\\nb" in listing
    for left in Path("/var/tmp").glob(f"hq-test-*-{job}"):
        left.unlink()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("node9\tnode9\tmany\t2\t-\tfalse\t0\ttrue", "total_number_slots"),
        ("here\there\t4\t4\t-\tfalse\t0\ttrue", "here"),
        ("node9\tnode9\t2\t4\t-\tfalse\t0\ttrue", "max_number_occupied_slots"),
        ("node9\tnode9", "column"),
    ],
    ids=["not a number", "duplicate", "more than it has", "too few columns"],
)
def test_a_malformed_cluster_tab_is_refused_with_its_line_and_the_old_one_stays(local_site: Site, line: str, says: str) -> None:
    table = local_site.etc / "cluster.tab"
    before = table.read_text()
    number = len(before.splitlines()) + 1
    table.write_text(before.rstrip("\n") + "\n" + line + "\n")
    try:
        done = local_site.admin("reload")
        assert done.rc in (1, 2) and f"line {number}" in done.err and says in done.err, done.err
        assert local_site.admin("lscluster").ok().out.count("here") >= 1
    finally:
        table.write_text(before)
    local_site.admin("reload").ok()


def test_a_second_server_on_the_instance_and_a_port_in_use_are_refused(local_site: Site) -> None:
    done = local_site.run("olga", "hq-server", "-d")
    assert done.rc == 1 and str(local_site.server_pid()) in done.err
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = str(local_site.folder / "other")
        local_site.run("olga", "hq-admin", "init", other, "--host", "x:1:local").ok()
        done = local_site.run("olga", "hq-server", "-d", "--etc", f"{other}/etc", "-p", str(port))
        assert done.rc == 1 and str(port) in done.err and "in use" in done.err
        shutil.rmtree(other)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql+pymysql://hq:topsecret@127.0.0.1:1/hq", "127.0.0.1"),
        ("nonsense://x", "nonsense"),
        ("sqlite:////proc/nowhere/state.db", "/proc/nowhere"),
    ],
)
def test_a_wrong_database_url_is_one_clear_line_without_the_password(local_site: Site, url: str, says: str) -> None:
    folder = str(local_site.folder / "broken")
    done = local_site.run("olga", "hq-admin", "init", folder, "--db", url, "--host", "x:1:local")
    assert done.rc != 0 and says in done.err and "topsecret" not in done.err and "Traceback" not in done.err, done.err
    assert not Path(folder).exists()


def test_a_stranger_and_an_absent_server_are_told_what_to_do(local_site: Site, install: Path) -> None:
    done = local_site.run("carol", "hq-submit", "true")
    assert done.rc == 1 and "adduser" in done.err, done.err
    other = str(local_site.folder / "silent")
    local_site.run("olga", "hq-admin", "init", other, "--host", "x:1:local").ok()
    done = local_site.run("olga", "hq-submit", "true", env={"HQ_ETC": f"{other}/etc"})
    assert done.rc == 1 and "hq-server" in done.err, done.err
    shutil.rmtree(other)


def test_unknown_verbs_suggest_the_nearest(local_site: Site) -> None:
    done = local_site.client("alice", "jbos")
    assert done.rc == 2 and "jobs" in done.err
    done = local_site.admin("lsclutser")
    assert done.rc == 2 and "lscluster" in done.err
