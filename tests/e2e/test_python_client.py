"""A program of a user's own that submits by hq.client.api: in a pipeline, while his user-server is killed."""

from __future__ import annotations

from tests.support.install import readable_python
from tests.support.site import Site

#: Kills the user-server when it is half through, and tells the ids at the end.
PROGRAM = """
import os, signal, sys
from hq.client.api import Client
count, folder, lock = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with Client() as hq:
    jobs = []
    for number in range(count):
        if number == count // 2:
            os.kill(int(open(lock).read().split()[0]), signal.SIGKILL)
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
    count = 400
    lock = local_site._run_dir("alice") / "lock"
    done = local_site.run("alice", str(readable_python()), str(program), str(count), str(folder), str(lock), timeout=100).ok()
    ids, code = done.out.splitlines()
    assert code == "0"
    assert ids.split() == sorted(set(ids.split()), key=int) and len(ids.split()) == count, "each has its own id, in order"
    assert sorted((folder / "ran").read_text().split()) == sorted(ids.split()), "each has run, once"
