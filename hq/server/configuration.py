"""The files of `etc/` that an administrator edits, read and edited in place: cluster.tab, users, client.yaml.

Edits are atomic and keep comments and the order of the lines. Their grammar is `hq.kernel.clustertab` and `hq.kernel.config`.
"""

from __future__ import annotations

import os
import tempfile

from hq.core.events import ConfigurationRead
from hq.errors import InputError
from hq.kernel.clustertab import parse_cluster_tab
from hq.kernel.config import read_users
from hq.model.host import HostSpec
from hq.model.user import UserRecord

COLUMNS = (
    "short_name", "full_name", "total_number_slots", "max_number_occupied_slots", "additional_info",
    "allow_info_server", "info_server_port", "active",
)  # fmt: skip


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


def read_configuration(etc: str) -> ConfigurationRead:
    """cluster.tab and users as the core wants them. Raises InputError; then nothing was taken over."""
    return ConfigurationRead(hosts=read_hosts(etc), users=read_users(users_path(etc)))


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


def _is_row(line: str, name: str) -> bool:
    words = line.split()
    return bool(words) and not line.lstrip().startswith("#") and words[0] == name


def _without_row(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if not _is_row(line, name)]


def add_host(etc: str, name: str, columns: dict[str, str]) -> HostSpec:
    """Add a row to cluster.tab, checked as the whole file before it is written. `columns` by their name in the header.

    A column that the header lacks is added to it if it is an optional one. Raises InputError.
    """
    path = cluster_tab_path(etc)
    text = read_text(path)
    lines = text.splitlines()
    if any(_is_row(line, name) for line in lines):
        raise InputError(f"the host {name} stands in cluster.tab already: 'removehost {name}' first, or edit the file and reload", file=path)
    position = next((at for at, line in enumerate(lines) if line.split()[:1] == ["short_name"]), None)
    if position is None:
        header = list(COLUMNS)
        lines.insert(0, "\t".join(header))
        position = 0
    else:
        header = lines[position].split()
    missing = [column for column in columns if column not in header]
    if missing:
        lines[position] = lines[position].rstrip() + "".join("\t" + column for column in missing)
        for at, line in enumerate(lines):
            if at > position and line.strip() and not line.lstrip().startswith("#"):
                lines[at] = line.rstrip("\n") + "\t-" * len(missing)
        header += missing
    cells = {**_defaults(name, header), **columns}
    lines.append("\t".join(cells.get(column, "-") or "-" for column in header))
    new = "\n".join(lines) + "\n"
    specs = parse_cluster_tab(new, path)
    write_text(path, new)
    return next(spec for spec in specs if spec.name == name)


def _defaults(name: str, header: list[str]) -> dict[str, str]:
    values = {"short_name": name, "full_name": name, "additional_info": "-", "allow_info_server": "False", "info_server_port": "0", "active": "True"}
    return {column: values.get(column, "-") for column in header}


def remove_host(etc: str, name: str) -> None:
    """Take a host's row out of cluster.tab. Raises InputError if it is not there."""
    path = cluster_tab_path(etc)
    text = read_text(path)
    lines = _without_row(text, name)
    if len(lines) == len(text.splitlines()):
        raise InputError(f"there is no host {name}", file=path)
    new = "\n".join(lines) + "\n"
    parse_cluster_tab(new, path)
    write_text(path, new)


def put_user(etc: str, user: UserRecord) -> None:
    """Write a user's row in `users`, new or with other roles. The state `enabled` is not kept in the file."""
    path = users_path(etc)
    lines = _without_row(read_text(path), user.name) if os.path.exists(path) else []
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
