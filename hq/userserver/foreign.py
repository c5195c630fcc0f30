"""Exec-servers of a version too far from ours: what runs there is looked after, in the words that every version knows; nothing new is sent there.

Such a one was left behind by an upgrade of this side. The program that is on its host now is asked to take its worker's place; while that may
still come orders wait, later they are given back with the reason.
"""

from __future__ import annotations

from hq import VERSION
from hq.protocol.base import PROTOCOL, is_near
from hq.protocol.runs import ExecHello

#: So long may it take until the host's own program has taken over (seconds).
PATIENCE = 30.0


class Foreign:
    """By host. Moments are CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._met: dict[str, tuple[str, float]] = {}

    def __contains__(self, host: str) -> bool:
        return host in self._met

    def met(self, host: str, message: ExecHello, now: float) -> bool:
        """An exec-server said hello. Whether it is a foreign one that was not there before."""
        if is_near(message.protocol):
            self._met.pop(host, None)
            return False
        is_new = host not in self._met
        reason = (
            f"the exec-server on {host} is hq {message.version[:40]} (protocol {message.protocol}), this user-server hq {VERSION} (protocol {PROTOCOL}): "
            f"what runs there runs on, and nothing new starts there. Install hq {VERSION} or a version next to it on {host}"
        )
        self._met[host] = (reason, self._met[host][1] if not is_new else now)
        return is_new

    def left(self, host: str) -> None:
        """It is gone."""
        self._met.pop(host, None)

    def refusal(self, host: str, now: float) -> str:
        """Why nothing can be started on a host, once there is no more hope; empty while there is."""
        reason, since = self._met[host]
        return reason if now - since >= PATIENCE else ""

    def hopeless(self, now: float) -> list[tuple[str, str]]:
        """Hosts from which orders are to be given back, with the reason."""
        return [(host, reason) for host, (reason, since) in self._met.items() if now - since >= PATIENCE]

    def wake(self) -> float | None:
        """When there will be no more hope for one."""
        return min((since + PATIENCE for _, since in self._met.values()), default=None)
