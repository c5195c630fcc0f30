"""A pilot: an exec-server that runs inside a job of a batch system, and whose user-server is the exec-server of the login node.

    pilot DIRECTORY

Its bootstrap is a 0600 file in that directory. It ends when it has had nothing to do for a while; TERM ends its runs and then itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile

from hq.execserver.app import ExecServer
from hq.execserver.backends.base import Ended, NoteStatus
from hq.execserver.backends.cgroup import CgroupManager
from hq.execserver.backends.process import ProcessBackend
from hq.execserver.backends.statuses import StatusReader
from hq.execserver.bootstrap import load_bootstrap
from hq.execserver.supervisor import become_subreaper
from hq.kernel.clock import SystemClock
from hq.kernel.log import open_log
from hq.kernel.loop import Loop
from hq.kernel.zmqbus import ZmqClient
from hq.model.ids import AttemptKey

#: Within so many seconds a batch system that kills a job has killed all of it.
FELLED_WITHIN = 1.0
_FELLING = (signal.SIGTERM, signal.SIGKILL)
_FELLED_CODES = (128 + signal.SIGTERM, 128 + signal.SIGKILL)


class PilotProcesses(ProcessBackend):
    """Runs inside a pilot. A batch system that kills the whole job may kill a run before the pilot: so an end by TERM or KILL that was not
    ordered is told a moment later. A pilot that is killed in that moment tells nothing, and its runs are lost, not failed."""

    def __init__(self, note_status: NoteStatus, statuses: StatusReader | None = None, cgroups: CgroupManager | None = None) -> None:
        super().__init__(note_status, statuses, cgroups)
        self._ordered: set[AttemptKey] = set()
        self._felled: list[tuple[float, Ended]] = []

    def poll(self, boot: float) -> tuple[list[Ended], list[AttemptKey]]:
        """As Backend.poll."""
        ended, gone = super().poll(boot)
        felled = [each for each in ended if (each.signal in _FELLING or each.exit_code in _FELLED_CODES) and each.key not in self._ordered]
        self._felled += [(boot, each) for each in felled]
        due = [each for since, each in self._felled if boot - since >= FELLED_WITHIN]
        self._felled = [(since, each) for since, each in self._felled if boot - since < FELLED_WITHIN]
        return [each for each in ended if each not in felled] + due, gone

    def signal(self, key: AttemptKey, number: int, is_ending: bool) -> None:
        """As Backend.signal."""
        self._ordered.add(key)
        super().signal(key, number, is_ending)

    def forget(self, key: AttemptKey) -> None:
        """As Backend.forget."""
        self._ordered.discard(key)
        super().forget(key)


def main(argv: list[str] | None = None) -> int:
    """Be a pilot until it is not needed any more. Returns the exit code."""
    (directory,) = (sys.argv[1:] if argv is None else argv)[:1]
    os.umask(0o077)
    told = load_bootstrap(directory)
    become_subreaper()
    run_dir = tempfile.mkdtemp(prefix="hq-pilot-")
    try:
        os.mkdir(os.path.join(run_dir, "log"), 0o700)
        clock = SystemClock()
        log = open_log("pilot", os.path.join(run_dir, "log"))

        def dial(address: str) -> ZmqClient:
            return ZmqClient(address, told.upstream_key, told.public, told.secret)

        server = ExecServer(told, run_dir, log, dial, clock.now(), processes=PilotProcesses)
        loop = Loop(server, clock)
        server.dialer.on_open = loop.add_port
        server.dialer.on_close = loop.remove_port
        loop.run()
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
