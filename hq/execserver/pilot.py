"""A pilot: an exec-server that runs inside a job of a batch system, and whose user-server is the exec-server of the login node.

    pilot DIRECTORY

Its bootstrap is a 0600 file in that directory. It ends when it has had nothing to do for a while; TERM ends its runs and then itself.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

from hq.execserver.app import ExecServer
from hq.execserver.bootstrap import load_bootstrap
from hq.execserver.supervisor import become_subreaper
from hq.kernel.clock import SystemClock
from hq.kernel.log import open_log
from hq.kernel.loop import Loop
from hq.kernel.zmqbus import ZmqClient


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

        server = ExecServer(told, run_dir, log, dial, clock.now())
        loop = Loop(server, clock)
        server.dialer.on_open = loop.add_port
        server.dialer.on_close = loop.remove_port
        loop.run()
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
