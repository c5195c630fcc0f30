"""Daemons import all that they need when they start: what lies beside them may be replaced while they run.

`hq.client` is not meant: a command's verbs are imported as they are asked for, and it is over in a moment.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "db", "execserver", "kernel", "model", "protocol", "server", "userserver")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / "hq" / room).rglob("*.py") if "migrations" not in path.parts)

#: Functions that import, each at the start of its process.
AT_START = {
    "execserver/main.py": {"print_check", "bootstrap", "_daemon_environment", "supervise", "_make_worker"},
    "userserver/transports/base.py": {"transport_for"},  # asked for all kinds of hosts as soon as these are known: Transports.get_ready
}


def late_imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Functions that import, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                is_call = isinstance(inner, ast.Call) and getattr(inner.func, "id", getattr(inner.func, "attr", "")) in ("__import__", "import_module")
                if isinstance(inner, ast.Import | ast.ImportFrom) or is_call:
                    yield node.name, node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_of_a_daemon_imports(path: Path) -> None:
    allowed = AT_START.get(str(path.relative_to(ROOT / "hq")), set())
    found = [f"{path}:{line} {name}" for name, line in late_imports(ast.parse(path.read_text())) if name not in allowed]
    assert not found, "\n".join(found)


_SERVER = """
import sys, tempfile
from pathlib import Path
from hq.server import app
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.jobs import JobAct, JobExplain, JobQuery, JobWatch
from hq.model.selection import Selection
from hq.protocol.peers import HostQuery, PeerAsk
from tests.support.serverroom import Room
room = Room(Path(tempfile.mkdtemp()))
alice = room.user("alice")
before = set(sys.modules)
alice.link("one", LinkState.ALIVE)
job = alice.submit("true")
alice.submit("true", indices="1-3")
alice.run(job)
for message in (JobQuery(selection=Selection(is_all=True)), JobExplain(task="2"), JobWatch(selection=Selection(is_all=True)), HostQuery(), PeerAsk(),
                JobAct(action="cancel", selection=Selection(is_all=True))):
    alice.answers(message)
for words in (["status"], ["lscluster"], ["lsusers"], ["lsjobs"], ["reload"], ["drain", "two"], ["audit"], ["adduser", "dave"], ["help"]):
    room.client("carol-admin").answers(__import__("hq.protocol.admin", fromlist=["AdminRun"]).AdminRun(words=tuple(words)))
room.tick(400.0)
print(*sorted(set(sys.modules) - before))
"""

_USERSERVER = """
import sys, tempfile
from pathlib import Path
from hq.userserver import app
from hq.model.ids import AttemptKey
from hq.userserver.transports.base import Transports, TransportSettings
from hq.protocol.jobs import JobAsk, JobRequest, JobQuery, LogRead
from hq.protocol.peers import HostCheck, PeerAsk
from hq.model.selection import Selection
from hq.protocol.runs import RunStop
from tests.support.userserver_rig import Rig, host, order, start
specs = [host("node"), host("other", transport="ssh"), host("third", transport="openssh")]
Transports(TransportSettings(run_dir=tempfile.mkdtemp())).get_ready(specs)
rig = Rig(Path(tempfile.mkdtemp()), specs)
rig.welcome()
before = set(sys.modules)
rig.tell(start("node", order(1)))
rig.exec_comes("node")
rig.tell(RunStop(host="node", runs=(AttemptKey(1, -1, 1),)))
client = rig.client()
for message in (JobAsk(key="k", jobs=(JobRequest(argv=(b"true",)),)), JobQuery(selection=Selection(is_all=True)), PeerAsk(), HostCheck(host="node"), LogRead(task="1")):
    rig.ask(client, message)
rig.move(40.0)
for spec in specs:
    Transports(TransportSettings(run_dir=tempfile.mkdtemp())).transport_for(spec)
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("script", [_SERVER, _USERSERVER], ids=["hq-server", "hq-user-server"])
def test_no_module_is_loaded_while_it_serves(script: str) -> None:
    """Neither one of ours nor one of a library that loads parts of itself late. The standard library's codecs come as they are needed."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    late = [name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names]
    assert not late, late
