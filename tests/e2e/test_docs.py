"""Each command line in README and the guides is run, in order, in one shell, as a user would type it, on hosts named node1 to node3."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.hosts import Hosts
from tests.support.install import REPOSITORY
from tests.support.proc import Command
from tests.support.slurm import SlurmCluster

READER = "carol"


def command_lines(page: str) -> list[str]:
    """The lines after `$ ` in the console blocks of a page."""
    text = (REPOSITORY / page).read_text()
    blocks = re.findall(r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    return [line.strip()[2:] for block in blocks for line in block.splitlines() if line.strip().startswith("$ ")]


@pytest.fixture
def reader(hosts: Hosts, install: Path) -> Iterator[Command]:
    """A user whose ssh knows the test hosts by the names that the guides use, in an empty folder of his own."""
    entry = pwd.getpwnam(READER)
    home = Path(entry.pw_dir)
    block = home / ".ssh" / "hq-docs.conf"
    known = home / ".ssh" / f"hq-{hosts.tag}.known"
    names = {"node1": "node1", "node2": "node2", "node3": "far"}
    block.write_text("".join(f"Host {name}\n  HostName {hosts.address(host)}\n  UserKnownHostsFile {known}\n" for name, host in names.items()))
    os.chown(block, entry.pw_uid, entry.pw_gid)
    folder = home / "reading"
    yield Command(install, READER, {"FOLDER": str(folder)})
    block.unlink()
    for left in (folder, home / "hq", home / "site"):
        shutil.rmtree(left, ignore_errors=True)


def read(reader: Command, *pages: str, before: Sequence[str] = ()) -> str:
    """Type all lines of some pages, and some before, into one shell; then stop what was started. Fails at the first line that does. Returns what was said."""
    lines = [*before, *(line for page in pages for line in command_lines(page))]
    assert lines
    typed = [part for line in lines for part in (f"echo '+ '{_quoted(line)}", line)]
    stop = "trap 'hq-client shutdown --hosts >&2; hq-admin shutdown >&2' EXIT"
    script = "\n".join(['mkdir -p "$FOLDER"; cd "$FOLDER"; set -e', stop, *typed, ""])
    done = reader("/bin/bash", "-c", script, timeout=240)
    assert done.rc == 0, f"{done.out[-3000:]}\n{done.err[-3000:]}"
    assert done.out.count("\n+ ") + 1 >= len(lines)
    return done.out


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_readme_and_user_guide(reader: Command) -> None:
    read(reader, "README.rst", "docs/user.rst")


def test_admin_guide(reader: Command) -> None:
    read(reader, "docs/admin.rst")


def test_the_pages_about_centres(reader: Command, slurm: SlurmCluster) -> None:
    before = (f"export SLURM_CONF={slurm.conf}", "hq-admin init ~/site --host node1:1:local", "export HQ_ETC=~/site/etc", "hq-server -d")
    said = read(reader, "docs/admin-centres.rst", "docs/user-centres.rst", before=before)
    status = said.partition("\n+ hq-client status\n")[2].partition("\n+ ")[0]
    assert re.search(r"at centre: +slurm:centre: answers; .*pilots: \d running, \d asked for.*, at most 4; tasks in pilots: \d+; tasks for pilots: \d+", status), said
