"""Column types: a moment is Unix time in Python and UTC DATETIME(6) in SQL, text compares byte by byte, bytes may be long.

Migrations use them too, so a type's meaning never changes; a new meaning is a new type.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect, LargeBinary, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1)
_LAST = datetime(9999, 12, 31, 23, 59, 59)
LAST_MOMENT = (_LAST - _EPOCH).total_seconds()

#: Every table of ours on MySQL and MariaDB.
TABLE_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def to_datetime(moment: float) -> datetime:
    """UTC without zone, to the microsecond. Moments outside 1970..9999 are moved to the nearest that SQL can hold; NaN is 1970."""
    if not moment > 0:
        return _EPOCH
    if moment >= LAST_MOMENT:
        return _LAST
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)


def to_moment(value: datetime) -> float:
    """Unix time of a UTC datetime without zone."""
    return (value - _EPOCH) // timedelta(microseconds=1) / 1e6


class Moment(TypeDecorator[float]):
    """Unix time (float) in Python, UTC DATETIME(6) in the database."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Microseconds where the dialect must be told."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: float | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        return None if value is None else to_datetime(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """From the database."""
        return None if value is None else to_moment(value)


def long_bytes() -> TypeEngine[bytes]:
    """Bytes up to what a packet of the server holds."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def long_text() -> TypeEngine[str]:
    """Text that may exceed 64 KB."""
    return Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def fingerprint() -> String:
    """A public key or digest: ASCII of fixed meaning."""
    return String(64)


def person() -> String:
    """A user's name."""
    return String(64)


def machine() -> String:
    """A host's short name."""
    return String(255)
