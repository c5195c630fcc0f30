"""The directory of one submission to a batch system, on the file system that login node and compute nodes share.

    BASE/TAG/            0700
        group.json       which attempts, in the order of their native indices; written before the submission
        native           the native id; written after it
        job.sh           the script that is submitted: it starts hq's runner, and holds nothing of the job
        INDEX.spec       0600: command, environment, streams, limits of one attempt; gone once it must not begin
        INDEX.start      made by the runner before anything else, once for ever: what keeps an attempt from running twice
        INDEX.held      made while hq has it held there: only what hq holds does hq release
        INDEX.exit       how it ended, by the runner
        native.out       what the batch system and the runner themselves had to say
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from dataclasses import dataclass, fields
from typing import Any

from hq.execserver.backends.base import Launch
from hq.kernel.files import make_private_dir, write_secret
from hq.model.ids import AttemptKey
from hq.model.states import OutputAction

_BYTES = tuple(each.name for each in fields(Launch) if each.type == "bytes")


@dataclass(slots=True)
class Group:
    """One submission: a native job, or an array with an element for each attempt. `native` empty: not known to be submitted."""

    tag: str
    directory: str
    keys: list[AttemptKey]
    native: str = ""

    def path(self, name: str) -> str:
        """A file of it."""
        return os.path.join(self.directory, name)

    def names(self) -> set[str]:
        """The files of it; none if they cannot be seen at the moment."""
        try:
            return set(os.listdir(self.directory))
        except OSError:
            return set()

    @property
    def submitted(self) -> float | None:
        """When its native id became known (Unix time by the clock of the file system); None: it did not."""
        try:
            return os.stat(self.path("native")).st_mtime
        except OSError:
            return None

    def is_held(self, index: int) -> bool:
        """Whether hq holds an attempt at the batch system."""
        return os.path.lexists(self.path(f"{index}.held"))

    def mark_held(self, index: int, is_held: bool) -> None:
        """Write down whether hq holds an attempt at the batch system. Raises OSError."""
        if is_held:
            _write(self.path(f"{index}.held"), "")
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(f"{index}.held"))


def write_group(base: str, tag: str, launches: list[Launch], index_variable: str, python: str) -> Group:
    """Write everything that a submission needs. Raises OSError, SecurityError."""
    make_private_dir(base)
    group = Group(tag, make_private_dir(os.path.join(base, tag)), [launch.key for launch in launches])
    for index, launch in enumerate(launches):
        write_secret(group.path(f"{index}.spec"), json.dumps(launch_words(launch)))
    _write(group.path("job.sh"), job_script(group, index_variable, python))
    # last: without it nothing was ever submitted
    _write(group.path("group.json"), json.dumps({"tag": tag, "keys": group.keys}))
    return group


def job_script(group: Group, index_variable: str, python: str) -> str:
    """The script for the batch system. Its index, where there is no array, is 0."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    start = "from hq.execserver.noderun import main; raise SystemExit(main())"
    words = shlex.join([python or sys.executable, "-B", "-c", start, group.directory])
    return (
        "#!/bin/sh\n# made by hq: starts hq's runner, which does the rest\ncd /\n"
        f"PYTHONPATH={shlex.quote(root)} PYTHONSAFEPATH=1 exec {words} \"${{{index_variable}:-0}}\"\n"
    )


def note_native(group: Group, id: str) -> None:
    """The submission is known by this id. Raises OSError."""
    group.native = id
    _write(group.path("native"), id)


def read_groups(base: str) -> list[Group]:
    """All submissions of before. Half-written ones were never submitted and are removed."""
    found = []
    try:
        tags = sorted(os.listdir(base))
    except FileNotFoundError:
        return []
    for tag in tags:
        directory = os.path.join(base, tag)
        try:
            with open(os.path.join(directory, "group.json"), encoding="ascii") as file:
                keys = [AttemptKey(*key) for key in json.load(file)["keys"]]
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(directory, ignore_errors=True)
            continue
        group = Group(tag, directory, keys)
        with contextlib.suppress(OSError), open(group.path("native"), encoding="ascii") as file:
            group.native = file.read().strip()
        found.append(group)
    return found


def read_words(path: str) -> dict[str, Any] | None:
    """A start or exit file; None if it is not there, or not whole yet."""
    try:
        with open(path, encoding="utf-8") as file:
            words = json.load(file)
    except (OSError, ValueError):
        return None
    return words if isinstance(words, dict) else None


def forbid(group: Group, index: int) -> bool:
    """See to it that an attempt does not begin. False: it has begun already. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(group.path(f"{index}.spec"))
    # the runner makes its mark first and reads then, so one of the two sees the other
    return not os.path.lexists(group.path(f"{index}.start"))


def last_words(group: Group) -> str:
    """The end of what batch system and runner wrote, for a reason."""
    try:
        with open(group.path("native.out"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 400))
            return " ".join(file.read().decode("utf-8", "replace").split())
    except OSError:
        return ""


def remove_group(group: Group) -> None:
    """Nothing of it is needed any more."""
    shutil.rmtree(group.directory, ignore_errors=True)


def launch_words(launch: Launch) -> dict[str, Any]:
    """A launch as JSON; bytes as Latin-1, which gives each byte one character."""
    words: dict[str, Any] = {each.name: getattr(launch, each.name) for each in fields(launch)}
    for name in _BYTES:
        words[name] = words[name].decode("latin-1")
    words["argv"] = [word.decode("latin-1") for word in launch.argv]
    words["env"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in launch.env.items()}
    words["output_action"] = launch.output_action.value
    return words


def read_launch(words: dict[str, Any]) -> Launch:
    """The reverse of `launch_words`."""
    told = dict(words)
    for name in _BYTES:
        told[name] = told[name].encode("latin-1")
    told["argv"] = tuple(word.encode("latin-1") for word in told["argv"])
    told["env"] = {name.encode("latin-1"): value.encode("latin-1") for name, value in told["env"].items()}
    told["key"] = AttemptKey(*told["key"])
    told["output_action"] = OutputAction(told["output_action"])
    return Launch(**told)


def _write(path: str, text: str) -> None:
    """In one step, and on the disk on return."""
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
