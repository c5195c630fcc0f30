"""One user floods, by his commands' socket and by his own key straight at hq-server, and reads no answer: others are served, memory stays bounded."""

from __future__ import annotations

import pwd
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from hq.kernel.keys import Sealer, Signer
from hq.kernel.places import read_client_config
from hq.model.job import Wishes
from hq.model.selection import Selection
from hq.protocol.base import PROTOCOL, Message
from hq.protocol.codec import encode, encode_line, envelope
from hq.protocol.jobs import AuditQuery, JobAsk, JobQuery, JobRequest, JobShow, LogRead
from hq.protocol.peers import HostQuery, KeyRegister, PeerAsk, PeerHello
from hq.protocol.runs import BlobGet
from hq.userserver.submit import Preparer
from tests.support import flooder
from tests.support.fuzz import Fuzz
from tests.support.proc import readable_python
from tests.support.site import Site
from tests.support.wait import until

MIB = 1 << 20
#: Without limits each passed a gigabyte in six seconds, and grew on.
MOST = 800 * MIB
#: Seconds of a daemon's own work under the flood.
WORK = 0.6
EVERYTHING = Selection(is_all=True)
#: What ends the user-server or lets held jobs go is the user's right, and no flood.
HARMLESS = ("peer.bye", "peer.shutdown", "ledger.ask", "job.act", "job.ask")


@pytest.fixture(scope="module")
def site(install: Path, hosts: object) -> Iterator[Site]:
    """This machine as a host of so many slots that its load is no reason to wait."""
    with Site(install, rows=["here:200:local"]) as made:
        for user in ("alice", "bob"):
            made.wait_for(user, made.submit(user, "true"))
        yield made


class Watched:
    """A daemon whose memory is looked at, from now on."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.process = psutil.Process(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = self.peak()
        self._work = self._spent()

    def peak(self) -> int:
        """The most memory (RSS) that it had since."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))

    @property
    def has_worked(self) -> bool:
        """Whether it had much to do."""
        return self._spent() - self._work > WORK

    def _spent(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def watched(site: Site) -> dict[str, Watched]:
    """hq-server, and alice's daemons."""
    uid = pwd.getpwnam("alice").pw_uid
    run_dir = Path(f"/var/tmp/hq-{uid}") / site.instance
    user, supervisor = (int((run_dir / name / "lock").read_text().split()[0]) for name in (".", "exec-here"))
    (worker,) = psutil.Process(supervisor).children()
    pids = {"hq-server": site.server_pid(), "hq-user-server": user, "hq-exec-server": worker.pid}
    return {name: Watched(name, pid) for name, pid in pids.items()}


def written(path: Path, pieces: Iterable[bytes]) -> str:
    """A file of what the flooder says."""
    path.write_bytes(b"".join(struct.pack(">I", len(each)) + each for each in pieces))
    return str(path)


@contextmanager
def flood(site: Site, *words: str) -> Iterator[None]:
    """alice floods."""
    program = Path(flooder.__file__).read_text()
    process = site.command("alice").start(str(readable_python()), "-c", program, *words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, process.communicate()
    finally:
        process.kill()
        process.communicate(timeout=20)


def serves_bob(site: Site, daemons: dict[str, Watched], busy: str) -> None:
    """While alice floods bob's jobs are taken and run, until a daemon had much to do by her."""

    def is_enough() -> bool:
        done = site.run("bob", "hq-submit", "--wait", "true")
        assert done.rc == 0, done
        return daemons[busy].has_worked

    until(is_enough, 120, f"{busy} to be busy")
    for each in daemons.values():
        assert each.process.is_running(), f"{each.name} has ended"
        print(f"{each.name}: {each.before // MIB} MiB before, at most {each.peak() // MIB} MiB")
        assert each.peak() < MOST, f"{each.name} grew from {each.before // MIB} to {each.peak() // MIB} MiB"


def held(count: int) -> tuple[JobRequest, ...]:
    return (JobRequest(argv=(b"true",), env=(b"A=b",), name="flood", wishes=Wishes(is_held=True)),) * count


def what_commands_say() -> Iterator[Message]:
    yield JobAsk(key="one" + "@" * 8, jobs=held(1))
    yield JobAsk(key="many" + "@" * 8, jobs=held(20))
    yield JobQuery(selection=EVERYTHING, limit=None)
    yield JobShow(task="1")
    yield LogRead(task="1", stream="stdout")
    yield AuditQuery(limit=10_000)
    yield HostQuery()
    yield PeerAsk(what="status")


def test_by_many_connections_of_commands(site: Site) -> None:
    daemons = watched(site)
    fuzz = Fuzz(1, without=HARMLESS)
    lines = [encode_line(each) for each in what_commands_say()] * 20
    said = written(site.folder / "lines", [*lines, *(line for line in (fuzz.line() for _ in range(200)) if not any(each.encode() in line for each in HARMLESS))])
    uid = pwd.getpwnam("alice").pw_uid
    with flood(site, "unix", f"/var/tmp/hq-{uid}/{site.instance}/client.sock", said, "150"):
        serves_bob(site, daemons, "hq-user-server")


def test_by_her_key_straight_at_hq_server(site: Site) -> None:
    daemons = watched(site)
    keys = Path(pwd.getpwnam("alice").pw_dir) / ".hq" / site.instance / "keys"
    preparer = Preparer(site.instance, "alice", Signer((keys / "sign.secret").read_text().strip()), Sealer((keys / "seal.key").read_text().strip()))
    # she moves her user-server here, and here, and here
    hello = PeerHello(version="0", protocol=PROTOCOL, boot="b", machine="m", address="tcp://127.0.0.1:1", takeover=True)
    said: list[Message] = []
    for number in range(100):
        said.append(preparer.prepare(JobAsk(key=f"k{number}", jobs=held(50))).message(set()))
        said += [JobQuery(selection=EVERYTHING, limit=None), BlobGet(digests=("a" * 64,)), AuditQuery(limit=10_000)]
        said.append(KeyRegister(host="here", public=f"{number:040}"))
    large = preparer.prepare(JobAsk(key="large", jobs=(JobRequest(script=bytes(4 * MIB), env=(b"A=b",)),), is_dry_run=True)).message(set())
    frames = [encode(envelope(hello, each, id=number)) for number, each in enumerate((*said, *[large] * 5), 1)]
    frames += [encode(envelope(hello, *[JobShow(task="1")] * 1000, id=1)), *Fuzz(2, without=HARMLESS).frames(300)]
    config = read_client_config(str(site.etc))
    with flood(site, "zmq", config.server, config.server_key, str(keys), written(site.folder / "frames", frames), "30"):
        del daemons["hq-user-server"]  # she has sent her own one away
        serves_bob(site, daemons, "hq-server")
