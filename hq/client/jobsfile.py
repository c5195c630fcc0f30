"""Jobs files: hQ's lines of `property::value` between tabs, and lines that are one JSON object. Options of the command line are defaults.

Everything is read and checked before anything is sent. As in hQ, `{idx}` is the index of the line in the file, counted from 0,
comments and empty lines included; behind a `$` it is a shell variable's and stays.
"""

from __future__ import annotations

import json
import re
import sys

from hq.client.options import nearest
from hq.client.request import Here, build_request
from hq.client.submit_options import is_flag, job_option, job_properties, read_value
from hq.errors import HqError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INDEX = re.compile(r"(?<!\$)\{idx\}")

#: More complaints than this about one file help nobody.
MAX_COMPLAINTS = 20


def read_jobs_file(path: str, defaults: dict[str, Any], here: Here) -> list[dict[str, Any]]:
    """The requests of a file; `-` is standard input. Raises InputError that lists every bad line by its number."""
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                content = file.read()
    except OSError as error:
        raise InputError(f"the jobs file cannot be read: {error.strerror}", file=name) from None
    requests: list[dict[str, Any]] = []
    complaints: list[str] = []
    for index, line in enumerate(content.split(b"\n")):
        text = line.decode("utf-8-sig" if not index else "utf-8", "surrogateescape").rstrip("\r")
        if not text.strip() or text.startswith("#"):
            continue
        try:
            values, words = parse_line(text, index)
            requests.append({**build_request({**defaults, **values}, words, here), "line": index + 1})
        except (HqError, UnicodeEncodeError) as error:
            complaints.append(str(InputError(str(error), file=name, line=index + 1)))
    if complaints:
        more = len(complaints) - MAX_COMPLAINTS
        lines = complaints[:MAX_COMPLAINTS] + ([f"… and {more} more bad lines"] if more > 0 else [])
        raise InputError("\n".join([*lines, "nothing was submitted"]))
    if not requests:
        raise InputError("there is no job in the file", file=name)
    return requests


def parse_line(text: str, index: int) -> tuple[dict[str, Any], list[str]]:
    """Values by option key, and the words of the command. Raises InputError or UsageError without place."""
    pairs = _json_pairs(text) if text.lstrip().startswith("{") else _tab_pairs(text)
    values: dict[str, Any] = {}
    words: list[str] = []
    for name, raw in pairs:
        value = _with_index(raw, index)
        if name == "command":
            # a list of one word is an argument list too; a shell line would be a text
            values["is_argv"] = isinstance(value, list)
            words = value if isinstance(value, list) else [str(value)]
            continue
        option = job_option(name)
        if option is None:
            raise InputError(f"there is no property '{name}'{nearest(name, job_properties())}")
        if option.key in values:
            raise InputError(f"the property '{name}' stands here twice")
        if is_flag(option):
            values[option.key] = _flag(name, value, option.value)
            continue
        try:
            values[option.key] = read_value(option, value)
        except ValueError as error:
            raise InputError(f"property '{name}': {error}") from None
    if not words and "script" not in values:
        raise InputError("there is no command")
    if values.get("script") == "-" or words == ["-"]:
        raise InputError("a jobs file cannot read a script from standard input")
    return values, words


def _tab_pairs(text: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for part in text.split("\t"):
        if not part.strip():
            continue
        name, colons, value = part.partition("::")
        if not colons:
            raise InputError(f"'{part}' is not of the form property::value (between two of them stands a tab)")
        name = name.strip()
        if name in (known for known, _ in pairs):
            raise InputError(f"the property '{name}' stands here twice")
        if name in ("excludedHosts", "excludeHosts") and value.lstrip().startswith("["):
            value = _json(value)
        pairs.append((name, value))
    return pairs


def _json_pairs(text: str) -> list[tuple[str, Any]]:
    found = _json(text)
    assert isinstance(found, dict)
    command = found.get("command")
    if command is not None and not isinstance(command, str):
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            raise InputError("the command is neither a text nor a list of texts")
    return [(name, value) for name, value in found.items() if value is not None]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"this is not JSON: {error}") from None


def _with_index(value: Any, index: int) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise InputError("there is a NUL byte in the line")
        return _INDEX.sub(str(index), value)
    if isinstance(value, list):
        return [_with_index(each, index) for each in value]
    if isinstance(value, dict):
        return {name: _with_index(each, index) for name, each in value.items()}
    return value


def _flag(name: str, value: Any, meant: Any) -> Any:
    if isinstance(value, str):
        value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(value.strip().lower())
    if not isinstance(value, bool):
        raise InputError(f"property '{name}': true or false is expected")
    return meant if value else not meant
