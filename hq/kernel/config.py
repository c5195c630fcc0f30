"""Configuration of the server's side: `hq.yaml`, `users`, `hq-db.cfg`. One table of options makes reader and sample agree.

`client.yaml` is in `hq.kernel.places`, `cluster.tab` in `hq.kernel.clustertab`.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from hq.errors import InputError
from hq.kernel.files import check_not_writable_by_others, read_secret
from hq.kernel.log import LEVELS
from hq.kernel.places import is_plain_name
from hq.model.quantities import parse_bytes, parse_seconds
from hq.model.user import UserRecord, parse_user_name

ROLES = frozenset({"user", "admin"})


class Option(NamedTuple):
    """One option of hq.yaml: its default as it is written there, how it is read, and a line on what it does."""

    name: str
    default: str
    read: Callable[[str], Any]
    doc: str


def _text(text: str) -> str:
    return text


def _instance(text: str) -> str:
    if not is_plain_name(text):
        raise InputError(f"'{text}' is not the name of an instance")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise InputError(f"'{text}' is not a port: a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"'{text}' is not a number from 0")
    return int(text)


def _days(text: str) -> int:
    value = _count(text)
    if 0 < value < 7:
        # a submission that comes twice is known by its row
        raise InputError(f"'{text}' is not 0, and not a number of days from 7")
    return value


def _seconds(text: str) -> float:
    try:
        return float(text) if 0 < float(text) <= 86400 * 3660 else parse_seconds(text)
    except ValueError:
        return parse_seconds(text)


def _failover(text: str) -> float:
    value = _seconds(text)
    if not 2 <= value <= 600:
        raise InputError(f"'{text}' is not a time from 2 to 600 seconds")
    return value


def _level(text: str) -> str:
    if text.upper() not in LEVELS:
        raise InputError(f"'{text}' is not a log level: {', '.join(LEVELS)}")
    return text.upper()


OPTIONS = (
    Option("instance", "", _instance, "Name of the instance, the same as in client.yaml and in the database. Made by hq-admin init; do not change it."),
    Option("bind", "0.0.0.0", _text, "Address that hq-server listens at; 127.0.0.1 if all its users work on this machine."),
    Option("port", "10101", _port, "TCP port of hq-server; 0 takes any free one. client.yaml must name the same."),
    Option("var", "", _text, "Directory of hq-server's own files (keys, log, SQLite database); empty: var beside etc."),
    Option("heartbeat", "5", _seconds, "How often peers speak, in seconds; after three silent ones a peer is suspect and gets nothing new."),
    Option("lease", "120", _seconds, "After how long a silence a host is lost to its user: what may be run again is, elsewhere."),
    Option("failover", "4", _failover, "After how long a silence of the active hq-server one that stands by takes its place, in seconds (2 to 600). The same on both."),
    Option("fair_share_half_life", "1d", _seconds, "Users take turns: who has used less goes first. In this time half of what somebody used is forgotten."),
    Option("probe_interval", "60", _seconds, "How often hq-server looks whether hosts can be reached."),
    Option("probe_timeout", "3", _seconds, "How long it waits for a host to answer."),
    Option("history_days", "0", _days, "How many days ended jobs are kept in the database (7 or more; 0: for ever). The audit stays in any case."),
    Option("log_level", "INFO", _level, "What is written to the log: DEBUG, INFO, WARNING or ERROR."),
    Option("log_size", "10M", parse_bytes, "At which size the log is rotated."),
    Option("log_files", "5", _count, "How many old logs are kept."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What hq.yaml says; meanings and defaults are in `OPTIONS`. Times in seconds, sizes in bytes, `var` and `etc` absolute."""

    instance: str
    bind: str
    port: int
    var: str
    heartbeat: float
    lease: float
    failover: float
    fair_share_half_life: float
    probe_interval: float
    probe_timeout: float
    history_days: int
    log_level: str
    log_size: int
    log_files: int
    etc: str

    @property
    def lock_path(self) -> str:
        """What an hq-server of the instance on this machine holds locked."""
        return os.path.join(self.var, "run", "hq-server.lock")


def read_server_config(etc: str) -> ServerConfig:
    """Read hq.yaml in an etc directory.

    Raises InputError with file and line for unknown options and bad values, SecurityError if others may write the file.
    """
    path = os.path.join(etc, "hq.yaml")
    check_not_writable_by_others(path)
    return parse_server_config(_read(path), path, etc)


def parse_server_config(text: str, file: str, etc: str) -> ServerConfig:
    """As read_server_config, from the text of the file."""
    values: dict[str, Any] = {option.name: option.read(option.default) for option in OPTIONS if option.default}
    by_name = {option.name: option for option in OPTIONS}
    seen: set[str] = set()
    for name, value, line in _pairs(text, file):
        if name not in by_name:
            near = get_close_matches(name, by_name, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(by_name)}"
            raise InputError(f"there is no option '{name}': {hint}", file=file, line=line)
        if name in seen:
            raise InputError(f"'{name}' stands here twice", file=file, line=line)
        seen.add(name)
        if value or by_name[name].default:
            try:
                values[name] = by_name[name].read(value)
            except InputError as error:
                raise InputError(f"{name}: {error.message}", file=file, line=line) from None
    if not values.get("instance"):
        raise InputError("'instance' is missing: hq-admin init DIR makes an instance", file=file)
    etc = os.path.abspath(etc)
    values["var"] = os.path.normpath(os.path.join(etc, values.get("var") or "../var"))
    if values["lease"] < 3 * values["heartbeat"]:
        raise InputError(f"lease: {values['lease']:g} s is shorter than three heartbeats of {values['heartbeat']:g} s", file=file)
    return ServerConfig(etc=etc, **values)


def sample_server_config(**given: str) -> str:
    """The text of an hq.yaml: every option with its doc; those in `given` are set, the others stand as comments with their default."""
    parts = ["# hq.yaml: how hq-server of this instance behaves. Times in seconds, or as 5m, 1:30:00, 7d. Read again by hq-admin reload."]
    for option in OPTIONS:
        value = given.get(option.name)
        parts.append(f"\n# {option.doc}\n" + (f"{option.name}: {value}" if value is not None else f"#{option.name}: {option.default}".rstrip()))
    return "\n".join(parts) + "\n"


def read_users(path: str) -> tuple[UserRecord, ...]:
    """Read the file `users`: a name, blanks, and roles (user, admin) separated by commas, one user a line, `#` comments.

    Raises InputError with file and line, SecurityError if others may write the file.
    """
    check_not_writable_by_others(path)
    return parse_users(_read(path), path)


def parse_users(text: str, file: str) -> tuple[UserRecord, ...]:
    """As read_users, from the text of the file."""
    found: dict[str, UserRecord] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            name = parse_user_name(words[0])
        except InputError as error:
            raise InputError(error.message, file=file, line=number) from None
        roles = frozenset(filter(None, (part.strip() for part in ",".join(words[1:]).split(",")))) or frozenset({"user"})
        for role in sorted(roles - ROLES):
            raise InputError(f"there is no role '{role}': roles are {', '.join(sorted(ROLES))}", file=file, line=number)
        if name in found:
            raise InputError(f"user {name} stands here twice", file=file, line=number)
        found[name] = UserRecord(name=name, roles=roles)
    return tuple(found.values())


_PARTS = ("dialect", "host", "port", "name", "username", "password")


def read_database_url(etc: str) -> str:
    """The URL of the state database from hq-db.cfg, which must be closed to others.

    The section [DATABASE] has `url`, or as in hQ `database_dialect`, `_host`, `_port`, `_name`, `_username`, `_password`.
    Raises InputError, or SecurityError if others may read the file. The password is in no message.
    """
    path = os.path.join(etc, "hq-db.cfg")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_secret(path), path)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", [])), (None,))[0]
        raise InputError("cannot be read: expected are lines of the form name = value below [DATABASE]", file=path, line=line) from None
    if not parser.has_section("DATABASE"):
        raise InputError("there is no section [DATABASE]", file=path)
    options = dict(parser.items("DATABASE"))
    for name in options:
        if name not in ("url", "echo", *(f"database_{part}" for part in _PARTS)):
            raise InputError(f"there is no option '{name}' in [DATABASE]", file=path)
    if options.get("url"):
        return options["url"]
    given = {part: options.get(f"database_{part}", "") for part in _PARTS}
    if not (given["dialect"] and given["name"]):
        raise InputError("[DATABASE] says neither url nor database_dialect and database_name", file=path)
    dialect = "mysql+pymysql" if given["dialect"].lower() in ("mysql", "mariadb") else given["dialect"]
    if dialect == "sqlite":
        return f"sqlite:///{given['name']}"
    login = quote(given["username"], safe="") + (f":{quote(given['password'], safe='')}" if given["password"] else "")
    place = given["host"] or "localhost"
    return f"{dialect}://{login}{'@' if login else ''}{place}{':' + given['port'] if given['port'] else ''}/{given['name']}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None


def _pairs(text: str, file: str) -> list[tuple[str, str, int]]:
    """The top-level `name: value` pairs of a YAML text as written, with their lines: the options decide what a word means."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"is not YAML: {getattr(error, 'problem', error)}", file=file, line=mark.line + 1 if mark else None) from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise InputError("expected are lines of the form name: value", file=file, line=node.start_mark.line + 1)
    pairs = []
    for name, value in node.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise InputError("expected is one value for each name", file=file, line=line)
        pairs.append((str(name.value), str(value.value), line))
    return pairs
