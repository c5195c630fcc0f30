"""Messages as plain dicts, as they stand in JSON lines: the names are those of `hq.protocol.jobs`, whose structs are not imported.

A test encodes what is built here with the real codec.
"""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hq.model.selection import Selection


def bytes_text(data: bytes) -> str:
    """Bytes as they travel in JSON."""
    return b2a_base64(data, newline=False).decode()


def text_bytes(text: str) -> bytes:
    """Bytes back from JSON."""
    return a2b_base64(text)


def word_text(word: str) -> str:
    """A word of a command line, whatever its bytes are, as it travels in JSON."""
    return bytes_text(os.fsencode(word))


def selection_dict(selection: Selection) -> dict[str, Any]:
    """A Selection as it travels in JSON."""
    return {
        "tasks": [list(task) for task in selection.tasks],
        "ranges": [list(each) for each in selection.ranges],
        "is_all": selection.is_all,
        "is_last": selection.is_last,
        "states": list(selection.states),
        "group": selection.group,
        "text": selection.text,
        "since": selection.since,
    }
