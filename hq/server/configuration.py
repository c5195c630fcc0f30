"""The files of `etc/` that an administrator edits, read and edited in place: cluster.tab, users, client.yaml.

Edits are atomic and keep comments and the order of the lines. Their grammar is `hq.kernel.clustertab` and `hq.kernel.config`.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

from hq.core.events import ConfigurationRead
from hq.errors import InputError
from hq.kernel.clustertab import COLUMNS, parse_cluster_tab
from hq.kernel.config import ServerConfig, read_users
from hq.model.host import HostSpec
from hq.model.user import UserRecord


def cluster_tab_path(etc: str) -> str:
    """Where the hosts are."""
    return os.path.join(etc, "cluster.tab")


def users_path(etc: str) -> str:
    """Where the users are."""
    return os.path.join(etc, "users")


def read_text(path: str) -> str:
    """The text of a configuration file. Raises InputError that names it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None


def read_hosts(etc: str) -> tuple[HostSpec, ...]:
    """The rows of cluster.tab. Raises InputError with line and column."""
    path = cluster_tab_path(etc)
    return parse_cluster_tab(read_text(path), path)


def read_configuration(etc: str, config: ServerConfig) -> ConfigurationRead:
    """cluster.tab, users and what the core needs of hq.yaml. Raises InputError; then nothing was taken over."""
    return ConfigurationRead(hosts=read_hosts(etc), users=read_users(users_path(etc)), half_life=config.fair_share_half_life)


def write_text(path: str, text: str) -> None:
    """Replace a file in one step, with the mode that it had. Raises InputError if it cannot be written."""
    try:
        mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=path) from None


@dataclass(slots=True)
class _Table:
    """The lines of cluster.tab, and where its header is. As in `hq.kernel.clustertab`: with a tab in the header cells are separated by tabs."""

    path: str
    lines: list[str]
    head: int
    columns: list[str]
    has_tabs: bool

    def cells(self, line: str) -> list[str]:
        """The cells of a line, with those at the end that it leaves out."""
        cells = line.split("\t") if self.has_tabs else line.split()
        return cells + [""] * (len(self.columns) - len(cells))

    def is_row(self, at: int, name: str) -> bool:
        """Whether this line is the row of a host."""
        line = self.lines[at]
        is_content = at > self.head and bool(line.strip()) and not line.lstrip().startswith("#")
        return is_content and self.cells(line)[self.columns.index("short_name")].strip() == name

    def joined(self, cells: list[str]) -> str:
        """A row as a line."""
        return "\t".join(cells).rstrip() if self.has_tabs else "  ".join(cell or "-" for cell in cells)

    def save(self) -> tuple[HostSpec, ...]:
        """Check the whole and write it. Raises InputError, and then the file is as it was."""
        text = "\n".join(self.lines) + "\n"
        specs = parse_cluster_tab(text, self.path)
        write_text(self.path, text)
        return specs


def _table(etc: str) -> _Table:
    path = cluster_tab_path(etc)
    text = read_text(path)
    parse_cluster_tab(text, path)
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if head is None:
        head = len(lines)
        lines.append("\t".join((*COLUMNS, "transport")))
    return _Table(path, lines, head, lines[head].split(), "\t" in lines[head])


def add_host(etc: str, name: str, columns: dict[str, str]) -> HostSpec:
    """Add a row to cluster.tab, checked as a whole file before it is written. `columns` by their name in the header.

    A column that the header lacks is added to it. Raises InputError.
    """
    table = _table(etc)
    if any(table.is_row(at, name) for at in range(len(table.lines))):
        raise InputError(f"the host {name} stands there already: 'removehost {name}' first, or edit the file and reload", file=table.path)
    if not table.has_tabs and any(" " in value for value in columns.values()):
        raise InputError("a value has a blank, which this file cannot hold: separate its columns by tabs", file=table.path)
    for column in [column for column in columns if column not in table.columns]:
        for at in range(table.head, len(table.lines)):
            line = table.lines[at]
            if at == table.head:
                table.lines[at] = line.rstrip() + ("\t" if table.has_tabs else "  ") + column
            elif line.strip() and not line.lstrip().startswith("#") and not table.has_tabs:
                table.lines[at] = line.rstrip() + "  -"
        table.columns.append(column)
    cells = {"short_name": name, "full_name": name, "allow_info_server": "false", "info_server_port": "0", "active": "true", **columns}
    table.lines.append(table.joined([cells.get(column, "") for column in table.columns]))
    return next(spec for spec in table.save() if spec.name == name)


def remove_host(etc: str, name: str) -> bool:
    """Take a host's row out of cluster.tab. Returns whether it was there. Raises InputError."""
    table = _table(etc)
    kept = [line for at, line in enumerate(table.lines) if not table.is_row(at, name)]
    is_there = len(kept) < len(table.lines)
    if is_there:
        table.lines = kept
        table.save()
    return is_there


def put_user(etc: str, user: UserRecord) -> None:
    """Write a user's row in `users`, new or with other roles. The state `enabled` is not kept in the file."""
    path = users_path(etc)
    lines = [line for line in read_text(path).splitlines() if line.partition("#")[0].split()[:1] != [user.name]]
    lines.append(f"{user.name}\t{','.join(sorted(user.roles))}")
    write_text(path, "\n".join(lines) + "\n")


def write_server_address(etc: str, address: str) -> bool:
    """Let `server:` in client.yaml say where hq-server listens now. Returns whether it had to be changed."""
    path = os.path.join(etc, "client.yaml")
    lines = read_text(path).splitlines()
    line = f"server: {address}"
    new = [line if old.startswith("server:") else old for old in lines]
    if line not in new:
        new.append(line)
    if new == lines:
        return False
    write_text(path, "\n".join(new) + "\n")
    return True
