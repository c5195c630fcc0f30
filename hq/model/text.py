"""Foreign text made safe for a terminal, a table and a log line. Not for SQL, shells or paths: nothing is ever quoted into those."""

from __future__ import annotations

import unicodedata

#: Category initials and names that are never shown as they are: control, format, surrogate, private, unassigned, line separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str | bytes) -> str:
    """One line that cannot steer a terminal: control, format and undecodable characters as `\\n`, `\\x1b`, `\\u202e`.

    Bytes are read as UTF-8; those that are no UTF-8 stand as `\\xNN`. Backslashes stay, so this is for eyes and not to be read back.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape carried through
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
