"""Hosts as `cluster.tab` describes them, and what is known of them while hq runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A row of `cluster.tab`. `slots` is what hq may occupy at most, `total` what the machine has. Memory in bytes."""

    name: str
    address: str  # hQ's full_name: what ssh is told
    total: int
    slots: int
    info: str = ""
    is_active: bool = True  # the column `active`: the state at the first sight of the host
    transport: str = "ssh"  # ssh | openssh | local
    backend: str = "process"
    queue: str = ""
    resources: dict[str, int] = field(default_factory=dict)
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """A host as hq-server keeps it: the row and what its owner decided. Survives a restart.

    `is_listed` is False once the row left cluster.tab while runs were still there: nothing new is placed.
    """

    spec: HostSpec
    is_active: bool = True
    drain_reason: str | None = None  # not None: draining
    is_listed: bool = True

    @property
    def name(self) -> str:
        """The short name: the identity of the host."""
        return self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSample:
    """Load of a host as one exec-server saw it. `at` is hq-server's clock on arrival."""

    host: str
    user: str
    at: float
    load1: float
    load5: float
    load15: float
    cores: int
    memory_total: int
    memory_free: int
