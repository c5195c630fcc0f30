"""What a database's exceptions mean: will trying again help, and one sentence about it that holds no password.

Not the place for raising: `engine`, `store` and `writer` decide what becomes of the answer.
"""

from __future__ import annotations

import sqlite3

from pymysql.err import InterfaceError, MySQLError
from sqlalchemy import exc
from sqlalchemy.engine import URL

#: What a statement can raise: SQLAlchemy's own errors, those of the drivers where they are spoken to directly, and the network's.
DATABASE_ERRORS = (exc.SQLAlchemyError, sqlite3.Error, MySQLError, OSError)

#: sqlite3 names of primary result codes that pass, or that somebody can cure without touching the data.
_SQLITE_PASSING = ("BUSY", "LOCKED", "FULL", "IOERR", "CANTOPEN", "READONLY", "NOMEM", "PROTOCOL", "INTERRUPT", "PERM", "AUTH")

#: MySQL's and MariaDB's error numbers of the same kind: disk, memory, limits, network, shutdown, rights, deadlock and lock wait.
_MYSQL_PASSING = frozenset(
    {3, 20, 23, 28, 1005, 1015, 1020, 1021, 1026, 1028, 1030, 1036, 1037, 1038, 1040, 1041, 1042, 1043, 1044, 1045, 1049, 1053}
    | {1077, 1078, 1079, 1080, 1105, 1114, 1129, 1130, 1135, 1142, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1189, 1190, 1203}
    | {1205, 1206, 1213, 1223, 1226, 1227, 1290, 1317, 1399, 1412, 1613, 1614, 1836, 1927, 1969, 3024, 4031}
    | {2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2055}
)

_HINTS = {
    1044: "the account has no rights on this database: grant them, or name another in hq-db.cfg",
    1045: "user name or password in hq-db.cfg are refused",
    1698: "user name or password in hq-db.cfg are refused",
    1049: "there is no such database: create it (CREATE DATABASE ... CHARACTER SET utf8mb4), or correct hq-db.cfg",
    1153: "a value is larger than the server's max_allowed_packet: raise it there",
    1213: "a deadlock",
    1205: "somebody holds a lock for too long",
    1114: "a table or the disk is full",
    1021: "the disk is full",
}


def _number(error: BaseException | None) -> int | None:
    first = error.args[0] if error is not None and error.args else None
    return first if isinstance(first, int) else None


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed later without any change to it: connection lost, locked, deadlock, disk full."""
    if isinstance(error, exc.TimeoutError | OSError):
        return True
    original: BaseException | None = error
    if isinstance(error, exc.DBAPIError):
        if error.connection_invalidated:
            return True
        original = error.orig
    if isinstance(original, sqlite3.Error):
        name = getattr(original, "sqlite_errorname", "") or ""
        return name.removeprefix("SQLITE_").split("_")[0] in _SQLITE_PASSING
    # PyMySQL's word for "I have no connection any more"
    if isinstance(original, InterfaceError) and _number(original) == 0:
        return True
    return isinstance(original, OSError) or (isinstance(original, MySQLError) and _number(original) in _MYSQL_PASSING)


def place_of(url: URL) -> str:
    """The database for people: never a password."""
    if url.get_backend_name() == "sqlite":
        return f"the state database {url.database}"
    return f"the state database '{url.database or ''}' at {url.host or 'localhost'}:{url.port or 3306}"


def explain(error: BaseException, url: URL) -> str:
    """One line: what happened, to which database, what to do. Values of statements are left out."""
    original = getattr(error, "orig", None) or error
    number = _number(original)
    words = str(original.args[-1]) if original.args else str(original)
    if isinstance(original, sqlite3.Error):
        hint = {
            "database or disk is full": "the disk is full: free some space",
            "database is locked": "another process holds it locked",
            "unable to open database file": "it cannot be opened: check that the directory exists and may be written",
        }.get(words, words)
    elif number in _HINTS:
        hint = f"{_HINTS[number]} ({number})"
    elif number in (2002, 2003, 2005, 2006, 2013) or isinstance(original, OSError):
        hint = f"does not answer: {words}; check that the server runs and that hq-db.cfg names it"
    elif isinstance(error, exc.TimeoutError):
        hint = "no connection became free in time"
    else:
        hint = words if number is None else f"{words} ({number})"
    line = " ".join(f"{place_of(url)}: {hint}".split())
    password = url.password
    return line.replace(str(password), "***") if password else line
