"""backends.yaml: how the synthetic hosts of cluster.tab are used, one block a host. One table of options makes reader and sample agree.

Read by the user-server, on the user's side: hq-server has no say in what a batch system is asked for with the user's rights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

import yaml

from hq.errors import InputError
from hq.kernel.files import check_not_writable_by_others
from hq.model.batch import BatchSettings
from hq.model.quantities import parse_bytes, parse_seconds

FILE = "backends.yaml"


class BackendOption(NamedTuple):
    """One option of a block: how its value is read, how its default is written, and a line on what it does."""

    name: str
    read: Callable[[Any], Any]
    default: str
    doc: str


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError("expected is one word")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError("expected is a list of words: [--constraint=new, --exclusive]")
    return tuple(value)


def _pairs(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InputError("expected are pairs: {NAME: value}")
    return value


def _count(value: Any) -> int:
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and 0 < int(value[:9]) and len(value) < 10):
        raise InputError(f"'{value}' is not a number from 1")
    return int(value)


def _limit(value: Any) -> int:
    return 0 if value == "0" else _count(value)


def _seconds(value: Any) -> float:
    try:
        seconds = float(_text(value))
    except ValueError:
        return parse_seconds(value)
    if not 0 < seconds <= 86400 * 3660:
        raise InputError(f"the time '{value}' is out of range")
    return seconds


def _delays(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise InputError("expected is a list of times: [5, 15, 1m, 5m]")
    return tuple(_seconds(each) for each in value)


def _bytes(value: Any) -> int:
    return parse_bytes(_text(value))


def _mode(value: Any) -> str:
    if value not in ("forward", "pilot", "auto"):
        raise InputError(f"'{value}' is not one of forward, pilot, auto")
    return str(value)


def _dialect(value: Any) -> str:
    if value not in ("auto", "torque", "openpbs"):
        raise InputError(f"'{value}' is not one of auto, torque, openpbs")
    return str(value)


BACKEND_OPTIONS = (
    BackendOption("mode", _mode, "forward", "What jobs without --mode get. forward: a native job for each task; pilot: small tasks go through pilots, see pilot_slots; auto: where twenty or more start at once."),
    BackendOption("partition", _text, "", "Partition (Slurm) or queue (Torque) that jobs go to; empty: the batch system's default."),
    BackendOption("account", _text, "", "Account or project that jobs are charged to."),
    BackendOption("qos", _text, "", "Quality of service."),
    BackendOption("extra", _words, "[]", "More arguments for sbatch or qsub, as they are."),
    BackendOption("path", _text, "", "Directory of the batch system's commands, if it is not in the usual PATH."),
    BackendOption("environment", _pairs, "{}", "More variables for these commands: {SLURM_CONF: /opt/slurm/etc/slurm.conf}."),
    BackendOption("python", _text, "", "Python for hq's runner on the compute nodes; empty: the one of the exec-server."),
    BackendOption("dialect", _dialect, "auto", "With the backend torque: torque or openpbs; auto asks qstat --version."),
    BackendOption("resources", _pairs, "{}", "How resources of a job are asked for: {licence: '--licenses=matlab:{count}'}. gpu and nodes need no entry."),
    BackendOption("max_time", _seconds, "", "Longest time limit there; a job that asks for more is refused. Empty: not known."),
    BackendOption("default_time", _seconds, "", "Native time limit of jobs without one of their own. Empty: the batch system's."),
    BackendOption("max_cores", _count, "", "Most slots of one job."),
    BackendOption("max_memory", _bytes, "", "Most memory of one job."),
    BackendOption("max_nodes", _count, "", "Most nodes of one job."),
    BackendOption("max_pending", _count, "200", "So many jobs of one user may wait there; the rest waits at hq."),
    BackendOption("max_array", _count, "500", "Most elements of one native array; 1: no native arrays."),
    BackendOption("poll_interval", _seconds, "10", "How often the batch system is asked, at most, for all jobs of a user together."),
    BackendOption("poll_longest", _seconds, "60", "How often, at least, while nothing changes."),
    BackendOption("look_interval", _seconds, "1", "How often the runners' files are looked at."),
    BackendOption("command_timeout", _seconds, "60", "How long a command of the batch system may take."),
    BackendOption("retry_delays", _delays, "[5, 15, 60, 300]", "Pauses before a submission that failed for now is tried again; the last one for ever."),
    BackendOption("exit_grace", _seconds, "30", "How long the runner's file may lag behind the batch system's word that a job is over."),
    BackendOption("unknown_after", _seconds, "1h", "After how long a job that nobody knows anything of counts as lost."),
    BackendOption("pilot_slots", _count, "4", "Cores of one pilot: a native job that runs an exec-server, which takes tasks of at most so many slots."),
    BackendOption("pilot_time", _seconds, "1h", "Walltime of a pilot. Tasks with a longer time limit get jobs of their own, as those with memory or resources do."),
    BackendOption("pilot_limit", _limit, "4", "Most pilots of one user at once; 0: none, and who asks for them is refused."),
    BackendOption("pilot_idle", _seconds, "60", "After how long with nothing to do a pilot ends."),
    BackendOption("pilot_cooldown", _seconds, "5m", "Pause before the next pilot after one that was refused or ended before it came."),
)


def read_backends(etc: str) -> dict[str, BatchSettings]:
    """The blocks of backends.yaml in an etc directory by host; none if there is no such file.

    Raises InputError with file and line, SecurityError if others may write the file.
    """
    path = os.path.join(etc, FILE)
    if not os.path.lexists(path):
        return {}
    check_not_writable_by_others(path)
    try:
        with open(path, encoding="utf-8") as file:
            return parse_backends(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None


def parse_backends(text: str, file: str) -> dict[str, BatchSettings]:
    """As read_backends, from the text of the file."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"is not YAML: {getattr(error, 'problem', error)}", file=file, line=mark.line + 1 if mark else None) from None
    found: dict[str, BatchSettings] = {}
    for name, block in _items(root, file):
        host = str(name.value)
        if host in found:
            raise InputError(f"the host {host} stands here twice", file=file, line=name.start_mark.line + 1)
        found[host] = _settings(block, file)
    return found


def _settings(block: Any, file: str) -> BatchSettings:
    known = {option.name: option for option in BACKEND_OPTIONS}
    values: dict[str, Any] = {}
    for name, node in _items(block, file):
        line = name.start_mark.line + 1
        if name.value not in known:
            near = get_close_matches(name.value, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise InputError(f"there is no option '{name.value}': {hint}", file=file, line=line)
        if name.value in values:
            raise InputError(f"'{name.value}' stands here twice", file=file, line=line)
        plain = _plain(node, file)
        if plain in ("", None) and known[name.value].default == "":
            continue
        try:
            values[name.value] = known[name.value].read(plain)
        except InputError as error:
            raise InputError(f"{name.value}: {error.message}", file=file, line=line) from None
    return BatchSettings(**values)


def _items(node: Any, file: str) -> list[tuple[Any, Any]]:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.value == ""):
        return []
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(name, yaml.ScalarNode) for name, _ in node.value):
        raise InputError("expected are a host's short_name, a colon, and indented below it lines of the form option: value", file=file,
                         line=node.start_mark.line + 1)  # fmt: skip
    return list(node.value)


def _plain(node: Any, file: str) -> Any:
    """The value as written: what a word means is the option's business."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each, file) for each in node.value]
    return {str(name.value): _plain(value, file) for name, value in _items(node, file)}


def sample_backends() -> str:
    """The text of a backends.yaml with every option, its default and what it does, for one host that does not exist."""
    lines = [
        "# backends.yaml: how the hosts of cluster.tab with the backend slurm or torque are used, one block a host (its short_name).",
        "# Read by each user's own user-server whenever it starts an exec-server. A host without a block has all defaults.",
        "#",
        "#centre:",
    ]
    for option in BACKEND_OPTIONS:
        lines += [f"#  # {option.doc}", f"#  {option.name}: {option.default}".rstrip()]
    return "\n".join(lines) + "\n"
