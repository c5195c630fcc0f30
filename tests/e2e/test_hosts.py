"""The testbed itself: what it promises to the other tests, and that nothing of it stays behind."""

from __future__ import annotations

import json
import pwd
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.hosts import Hosts
from tests.support.install import REPOSITORY, readable_python
from tests.support.users import run_as
from tests.support.wait import until


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts("hqa", "hqb", no_way_back=["hqb"]) as made:
        yield made


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def links() -> str:
    return json.dumps([link["ifname"] for link in json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)])


SCRIPT = """
import os, signal, sys
from tests.support.hosts import Hosts
made = Hosts("hqa")
made.__enter__()
print(made.tag, made.pids("hqa")[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    tag, pid = done.stdout.split()
    assert tag in namespaces() and tag in links()
    with Hosts("hqa"):
        assert tag not in namespaces() and tag not in links()
        until(lambda: not run_as("root", ["test", "-d", f"/proc/{pid}"]).returncode == 0 or "Z" in _state(pid), 60, "its sshd to end")


def _state(pid: str) -> str:
    return subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout


def test_a_host_that_loses_power_is_empty_and_comes_back(hosts: Hosts) -> None:
    before = hosts.pids("hqa")
    hosts.kill("hqa")
    until(lambda: not hosts.pids("hqa"), 60, "the host to be empty")
    hosts.cut("hqa")  # it comes up all the same
    hosts.start("hqa")
    hosts.join("hqa")
    assert hosts.pids("hqa") and not set(before) & set(hosts.pids("hqa"))
    assert hosts.exec("hqa", ["hostname"]).stdout == b"hqa\n"
    assert hosts.exec("hqa", ["id", "-un"], user="bob").stdout == b"bob\n"


def test_two_testbeds_do_not_disturb_each_other(hosts: Hosts) -> None:
    with Hosts("hqa") as other:
        assert other.gateway != hosts.gateway
        for testbed in (hosts, other):
            done = run_as("bob", ["ssh", "-o", "BatchMode=yes", testbed.address("hqa"), "hostname"])
            assert done.stdout == b"hqa\n", done.stderr
    assert pwd.getpwnam("bob")
    assert run_as("bob", ["ssh", "-o", "BatchMode=yes", hosts.address("hqa"), "hostname"]).stdout == b"hqa\n"


def test_users_run_without_any_right_of_root() -> None:
    """By executing directly, setpriv would give a program the right to be found where the user cannot look."""
    assert run_as("nobody", ["id", "-u"], cwd="/").stdout == b"%d\n" % pwd.getpwnam("nobody").pw_uid
    assert run_as("nobody", ["cat", "/etc/shadow"], cwd="/").returncode == 1
    done = run_as("nobody", [str(readable_python()), "-c", "import hq.errors, zmq; print(zmq.__file__)"], cwd="/")
    assert done.returncode == 0, done.stderr
