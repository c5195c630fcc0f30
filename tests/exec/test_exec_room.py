"""A supervisor on a full disk: no status is lost, for nobody is waited for whose status cannot be written down."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from hq.execserver.backends.statuses import StatusReader
from tests.support.wait import until

#: A supervisor whose disk is full while the file `full` is there.
_SUPERVISOR = """
import os, sys, types
from hq.execserver import supervisor
from hq.execserver.program import Program
folder = sys.argv[1]
supervisor.os.statvfs = lambda path: types.SimpleNamespace(f_bavail=0 if os.path.exists(folder + "/full") else 1)
supervisor.become_subreaper()
raise SystemExit(supervisor.Supervisor(folder, Program("0", folder + "/worker", folder), dict(os.environ)).run())
"""
#: The first worker starts a run and is killed; the second stays.
_WORKER = """#!/bin/sh
cd {folder}
if [ -e first ]; then echo $$ > second; exec sleep 600; fi
touch first
/bin/sh -c 'echo $$ > run; while [ -e hold ]; do sleep 0.05; done; exit 7' &
while [ ! -s run ]; do sleep 0.05; done
kill -9 $$
"""


def test_a_status_waits_for_room_and_the_worker_that_dies_meanwhile_does_not(tmp_path: Path) -> None:
    (tmp_path / "worker").write_text(_WORKER.format(folder=tmp_path))
    (tmp_path / "worker").chmod(0o700)
    (tmp_path / "hold").touch()
    (tmp_path / "full").touch()
    supervisor = subprocess.Popen([sys.executable, "-c", _SUPERVISOR, str(tmp_path)])
    try:
        until(lambda: (tmp_path / "second").exists() and (tmp_path / "second").read_text().strip(), what="the second worker")
        run = psutil.Process(int((tmp_path / "run").read_text()))
        starttime = int(Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[19])
        (tmp_path / "hold").unlink()
        until(lambda: run.status() == psutil.STATUS_ZOMBIE, what="the end of the run")
        worker = (tmp_path / "second").read_text()
        psutil.Process(int(worker)).kill()
        until(lambda: (tmp_path / "second").read_text().strip() not in ("", worker.strip()), what="the third worker")
        assert run.status() == psutil.STATUS_ZOMBIE and not (tmp_path / "statuses").exists()
        (tmp_path / "full").unlink()
        reader = StatusReader(str(tmp_path / "statuses"))
        found = until(lambda: reader.read().get((run.pid, starttime)), what="the status")
        assert found.exit_code == 7
    finally:
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 0
