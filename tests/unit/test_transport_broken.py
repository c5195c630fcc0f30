"""A connection that breaks under a command: the reason is told, whatever paramiko says when its channel is closed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hq.errors import UnavailableError
from hq.userserver.transports.deadline import Deadline
from hq.userserver.transports.paramiko_ssh import ParamikoConnection


class Broken:
    """A transport, and a channel of it, whose other end is gone."""

    def open_session(self, timeout: float) -> Broken:
        return self

    def settimeout(self, seconds: float) -> None:
        pass

    def exec_command(self, command: str) -> None:
        raise OSError("Socket is closed")

    def close(self) -> None:
        raise EOFError


def test_a_connection_that_breaks_is_told_with_its_reason() -> None:
    """Found by make chaos: closing the channel raised EOFError in place of the reason."""
    with pytest.raises(UnavailableError, match="Socket is closed"):
        ParamikoConnection(cast(Any, Broken()), "n1: ssh").run("true", b"", Deadline(5.0))
