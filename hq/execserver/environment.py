"""The environment of a job: what its submitter had (sealed on the way), and what hq adds.

| variable         | is                                                                                             |
|------------------|------------------------------------------------------------------------------------------------|
| `HQ_JOB_ID`      | the job's number                                                                               |
| `HQ_TASK_ID`     | the task's name: `1234`, or `1234_7` for element 7 of an array                                 |
| `HQ_ARRAY_INDEX` | the element's index; not set for a plain job                                                   |
| `HQ_ATTEMPT`     | which try of the task this is, from 1                                                          |
| `HQ_SLOTS`       | how many slots of the host the job has                                                         |
| `HQ_SLOT_IDS`    | which ones, with commas: no two runs on the host share one, so it serves to choose cores       |
| `HQ_HOST`        | the host's name in cluster.tab                                                                 |
| `HQ_USER`        | the job's owner                                                                                |
| `HQ_JOB_NAME`    | the job's name                                                                                 |
| `HQ_SUBMIT_DIR`  | the job's working directory as submitted                                                       |
| `HQ_INSTANCE`    | the instance of hq                                                                             |
| `HQ_RUN`         | a random name of this attempt's processes. Leave it set: hq finds stray processes by it        |

Variables that HyperQueue reads as configuration (`HQ_SERVER_DIR`, `HQ_OUTPUT_MODE`, `HQ_NUM_*`) are never set by hq.
A sealed environment is `NAME=value` pairs, each ended by a NUL byte, as in /proc/PID/environ.
"""

from __future__ import annotations

import os
import pwd

from hq.model.ids import PLAIN
from hq.model.job import JobSpec
from hq.model.runs import RUN_VARIABLES, StartOrder


def parse_environment(data: bytes) -> dict[bytes, bytes]:
    """Read a sealed environment once opened. Pairs without a name or `=`, and what hq sets itself, are left out."""
    found: dict[bytes, bytes] = {}
    for pair in data.split(b"\0"):
        name, equals, value = pair.partition(b"=")
        if name and equals:
            found[name] = value
    for own in RUN_VARIABLES:
        found.pop(own.encode(), None)
    return found


def plain_environment() -> dict[bytes, bytes]:
    """What a job without an environment of its own gets: who the user is, and a PATH."""
    entry = pwd.getpwuid(os.geteuid())
    return {
        b"HOME": os.fsencode(entry.pw_dir),
        b"USER": os.fsencode(entry.pw_name),
        b"LOGNAME": os.fsencode(entry.pw_name),
        b"SHELL": os.fsencode(entry.pw_shell or "/bin/sh"),
        b"PATH": b"/usr/local/bin:/usr/bin:/bin",
    }


def shared_environment(base: dict[bytes, bytes], spec: JobSpec, host: str) -> dict[bytes, bytes]:
    """What tasks of jobs of one name and directory have in common on a host: `base` (without our variables), and of the table above what neither changes."""
    own = {
        "HQ_HOST": host,
        "HQ_USER": spec.user,
        "HQ_JOB_NAME": spec.name.replace("\0", ""),
        "HQ_INSTANCE": spec.instance,
    }
    found = base | {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in own.items()}
    found[b"HQ_SUBMIT_DIR"] = spec.cwd
    return found


def run_environment(shared: dict[bytes, bytes], spec: JobSpec, order: StartOrder, tag: str) -> dict[bytes, bytes]:
    """The environment of one attempt: what it shares with others, and what is its own."""
    found = dict(shared)
    found[b"HQ_JOB_ID"] = b"%d" % order.job
    found[b"HQ_TASK_ID"] = str(order.key.task).encode()
    found[b"HQ_ATTEMPT"] = b"%d" % order.attempt
    found[b"HQ_SLOTS"] = b"%d" % (len(order.slots) or spec.slots)
    found[b"HQ_SLOT_IDS"] = b",".join([b"%d" % slot for slot in order.slots])
    found[b"HQ_RUN"] = tag.encode()
    if order.index != PLAIN:
        found[b"HQ_ARRAY_INDEX"] = b"%d" % order.index
    return found
