"""Reads `cluster.tab`: the table of hosts, as hQ had it.

The first line names the columns. With a tab in it, cells are separated by single tabs, may hold spaces and may be empty;
without one, by runs of spaces, and `-` stands for an empty cell. `#` at the beginning of a line makes it a comment. hQ's
eight columns come in any order; `short_name`, `total_number_slots` and `max_number_occupied_slots` must be there. Not the
place for what is known of hosts while hq runs.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from hq.errors import InputError
from hq.model.host import HostSpec
from hq.model.quantities import parse_bytes

COLUMNS = (
    "short_name", "full_name", "total_number_slots", "max_number_occupied_slots", "additional_info", "allow_info_server",
    "info_server_port", "active",
)  # fmt: skip
OPTIONAL_COLUMNS = ("transport", "backend", "queue", "resources", "memory")
TRANSPORTS = ("ssh", "openssh", "local")
MAX_SLOTS = 1_000_000

_NEEDED = ("short_name", "total_number_slots", "max_number_occupied_slots")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
# no leading dash: the address becomes a word of ssh's command line
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}", re.ASCII)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_RESOURCE = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,63})=([0-9]{1,10})", re.ASCII)
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class _Row:
    """One line of the table: its cells by column, and where it stands."""

    def __init__(self, cells: dict[str, str], file: str, line: int) -> None:
        self.cells = cells
        self.file = file
        self.line = line

    def error(self, column: str, message: str) -> InputError:
        return InputError(message, file=self.file, line=self.line, column=column)

    def text(self, column: str) -> str:
        return self.cells.get(column, "")

    def match(self, column: str, pattern: re.Pattern[str], what: str, default: str) -> str:
        text = self.text(column) or default
        if text and pattern.fullmatch(text) is None:
            raise self.error(column, f"'{text}' is not {what}")
        return text

    def number(self, column: str, least: int) -> int:
        text = self.text(column)
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) and int(text[:9]) <= MAX_SLOTS and len(text) < 9):
            raise self.error(column, f"'{text}' is not a number from {least} to {MAX_SLOTS:,}")
        return int(text)

    def truth(self, column: str, default: bool) -> bool:
        text = self.text(column)
        if not text:
            return default
        if text.lower() not in _TRUTH:
            raise self.error(column, f"'{text}' is neither true nor false (true, yes, 1, false, no, 0)")
        return _TRUTH[text.lower()]


def parse_cluster_tab(text: str, file: str) -> tuple[HostSpec, ...]:
    """The hosts of a cluster.tab in the order of its lines. `file` is its name, for messages.

    Raises InputError with file, line and column for whatever is wrong; nothing is guessed.
    """
    header: list[str] | None = None
    has_tabs = False
    hosts: dict[str, tuple[HostSpec, int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.rstrip("\r\n")
        # hQ's own files may have the header behind a #
        candidate = line.lstrip("# \t") if header is None else ""
        if not line.strip() or (line.lstrip().startswith("#") and not re.match(r"short_name\s+\w+_", candidate)):
            continue
        if header is None:
            has_tabs = "\t" in candidate
            header = _header(_split(candidate, has_tabs), file, number)
            continue
        cells = _split(line, has_tabs)
        if has_tabs:
            cells += [""] * (len(header) - len(cells)) if len(cells) > 1 else []
        if len(cells) != len(header):
            hint = "" if has_tabs == ("\t" in line) else "; cells are separated as in the header: by tabs" if has_tabs else "; the header has no tabs"
            raise InputError(f"the header has {len(header)} columns, this line {len(cells)}{hint}", file=file, line=number)
        spec = _host(_Row(dict(zip(header, cells, strict=True)), file, number))
        if spec.name in hosts:
            raise InputError(f"host {spec.name} stands already in line {hosts[spec.name][1]}", file=file, line=number, column="short_name")
        hosts[spec.name] = (spec, number)
    if header is None:
        raise InputError(f"there is no header line: the first line names the columns {' '.join(COLUMNS)}", file=file)
    return tuple(spec for spec, _ in hosts.values())


def read_cluster_tab(path: str) -> tuple[HostSpec, ...]:
    """As parse_cluster_tab, from a file."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None
    return parse_cluster_tab(text, path)


def _split(line: str, has_tabs: bool) -> list[str]:
    if has_tabs:
        return [cell.strip() for cell in line.rstrip("\t ").split("\t")]
    return ["" if cell == "-" else cell for cell in line.split()]


def _header(columns: list[str], file: str, line: int) -> list[str]:
    known = COLUMNS + OPTIONAL_COLUMNS
    for column in columns:
        if column not in known:
            near = get_close_matches(column, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise InputError(f"there is no column '{column}': {hint}", file=file, line=line)
        if columns.count(column) > 1:
            raise InputError(f"the column '{column}' stands here twice", file=file, line=line)
    for column in _NEEDED:
        if column not in columns:
            raise InputError(f"the column '{column}' is missing", file=file, line=line)
    return columns


def _host(row: _Row) -> HostSpec:
    name = row.text("short_name")
    if _NAME.fullmatch(name) is None:
        raise row.error("short_name", f"'{name}' is not a host name: letters, digits, dots, dashes; no word for ssh")
    total = row.number("total_number_slots", 1)
    slots = row.number("max_number_occupied_slots", 0)
    if slots > total:
        raise row.error("max_number_occupied_slots", f"{slots} slots may be occupied, but the host has only {total} (total_number_slots)")
    transport = row.text("transport") or "ssh"
    if transport not in TRANSPORTS:
        raise row.error("transport", f"'{transport}' is not a transport: {', '.join(TRANSPORTS)}")
    # hQ's info server is no more; its columns are still checked, so that a shifted line is noticed
    row.truth("allow_info_server", False)
    if row.text("info_server_port"):
        row.number("info_server_port", 0)
    memory = row.text("memory")
    try:
        size = parse_bytes(memory) if memory else None
    except InputError as error:
        raise row.error("memory", error.message) from None
    return HostSpec(
        name=name,
        address=row.match("full_name", _ADDRESS, "a host's name or address", name),
        total=total,
        slots=slots,
        info=row.text("additional_info"),
        is_active=row.truth("active", True),
        transport=transport,
        backend=row.match("backend", _WORD, "the name of a backend", "process"),
        queue=row.match("queue", _WORD, "the name of a queue", ""),
        resources=_resources(row),
        memory=size,
    )


def _resources(row: _Row) -> dict[str, int]:
    """`gpu=2,licence=5`."""
    found: dict[str, int] = {}
    for part in filter(None, row.text("resources").split(",")):
        match = _RESOURCE.fullmatch(part.strip())
        if match is None or int(match[2]) > 2**31:
            raise row.error("resources", f"'{part}' is not of the form NAME=NUMBER")
        if match[1] in found:
            raise row.error("resources", f"{match[1]} stands here twice")
        found[match[1]] = int(match[2])
    return found
