"""Logs of the daemons: one file, rotated, in categories that can be switched on and off while the daemon runs.

The loggers belong to the `Log`, not to the process: nothing global is configured. Control characters in messages are
escaped, so that no peer's text can make a line of its own.
"""

from __future__ import annotations

import logging
import os
import time
from difflib import get_close_matches
from logging.handlers import RotatingFileHandler

from hq.errors import InputError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029)} | {9: "\t", 10: "\\n"}


class _Formatter(logging.Formatter):
    """`2026-01-31T12:00:00.123+0100 WARNING jobs: text`; a traceback follows on indented lines."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Local time with milliseconds and the offset from UTC."""
        moment = time.localtime(record.created)
        return time.strftime(f"%Y-%m-%dT%H:%M:%S.{int(record.msecs):03}%z", moment)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        return super().formatMessage(record).translate(_ESCAPED)

    def formatException(self, ei: object) -> str:
        """A traceback, indented, so that its lines cannot be taken for records."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join("    " + line for line in text.split("\n"))


class Log:
    """The categories of one daemon and where they are written."""

    def __init__(self, handler: logging.Handler, level: str) -> None:
        self._handler = handler
        self._loggers: dict[str, logging.Logger] = {}
        self._level = level

    def category(self, name: str) -> logging.Logger:
        """The logger of a category, made when first asked for."""
        logger = self._loggers.get(name)
        if logger is None:
            logger = logging.Logger(name, self._level)
            logger.addHandler(self._handler)
            self._loggers[name] = logger
        return logger

    def categories(self) -> dict[str, bool]:
        """Every category and whether it is on."""
        return {name: not logger.disabled for name, logger in sorted(self._loggers.items())}

    def set_category(self, name: str, on: bool) -> None:
        """Switch a category on or off. Raises InputError if there is none of that name."""
        if name not in self._loggers:
            near = get_close_matches(name, self._loggers, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(self._loggers))}"
            raise InputError(f"there is no log category '{name}': {hint}")
        self._loggers[name].disabled = not on

    def set_level(self, level: str) -> None:
        """Change what is written in all categories: DEBUG, INFO, WARNING or ERROR."""
        self._level = level
        for logger in self._loggers.values():
            logger.setLevel(level)

    def reopen(self) -> None:
        """Begin a new file if somebody moved the old one away (SIGHUP)."""
        if isinstance(self._handler, RotatingFileHandler):
            self._handler.acquire()
            try:
                if self._handler.stream is not None:
                    self._handler.stream.close()
                self._handler.stream = self._handler._open()
            finally:
                self._handler.release()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._handler.close()


def open_log(daemon: str, directory: str | None, level: str = "INFO", max_bytes: int = 10 << 20, files: int = 5) -> Log:
    """The log of a daemon: `directory/daemon.log` (mode 0600), rotated at `max_bytes`; stderr without a directory.

    Raises InputError if the file cannot be written or the level is none.
    """
    if level not in LEVELS:
        raise InputError(f"'{level}' is not a log level: {', '.join(LEVELS)}")
    handler: logging.Handler
    if directory is None:
        handler = logging.StreamHandler()
    else:
        path = os.path.join(directory, f"{daemon}.log")
        try:
            handler = _PrivateFile(path, maxBytes=max_bytes, backupCount=files, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise InputError(f"the log cannot be written: {error.strerror}", file=path) from None
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return Log(handler, level)


class _PrivateFile(RotatingFileHandler):
    """A log file that only its owner reads."""

    def _open(self):  # type: ignore[no-untyped-def]
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        return super()._open()
