"""A program of a user's own that submits by hq.client.api: in a pipeline, while his user-server is killed."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import psutil

from tests.support.install import readable_python
from tests.support.proc import Result
from tests.support.site import Site
from tests.support.wait import until

#: Tells by a line when it is half through, and at the end the ids.
PROGRAM = """
import sys
from hq.client.api import Client
count, folder = int(sys.argv[1]), sys.argv[2]
with Client() as hq:
    jobs = []
    for number in range(count):
        if number == count // 2:
            open(folder + "/half", "w").close()
        jobs.append(hq.submit(f"echo $HQ_JOB_ID >> {folder}/ran", name=f"n{number}"))
    hq.flush()
    print(*[job.id for job in jobs])
    print(hq.wait(jobs))
"""


def test_a_killed_user_server_loses_and_doubles_nothing_of_a_pipeline(local_site: Site) -> None:
    folder = local_site.folder / "pipeline"
    folder.mkdir()
    folder.chmod(0o777)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    program.chmod(0o644)
    local_site.client("alice", "ping")
    done: list[Result] = []
    count = 400

    def work() -> None:
        done.append(local_site.run("alice", str(readable_python()), str(program), str(count), str(folder), timeout=100))

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: done or (folder / "half").exists(), 30, "half of the submissions")
    assert not done, done[0].ok()
    lock = Path(local_site._run_dir("alice") / "lock")
    psutil.Process(int(lock.read_text().split()[0])).send_signal(signal.SIGKILL)
    thread.join(100)
    ids, code = done[0].ok().out.splitlines()
    assert code == "0"
    assert ids.split() == sorted(set(ids.split()), key=int) and len(ids.split()) == count, "each has its own id, in order"
    assert sorted((folder / "ran").read_text().split()) == sorted(ids.split()), "each has run, once"
