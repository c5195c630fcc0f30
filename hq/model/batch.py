"""How a batch system is used: the settings of one synthetic host, as backends.yaml says them. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The backends that submit to a batch system instead of making processes.
BATCH_BACKENDS = frozenset({"slurm", "torque"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """One synthetic host. Meanings and defaults stand in the table of options in `hq.kernel.backends`."""

    mode: str = "forward"  # forward | pilot | auto
    partition: str = ""
    account: str = ""
    qos: str = ""
    extra: tuple[str, ...] = ()
    path: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    python: str = ""
    dialect: str = "auto"  # torque: auto | torque | openpbs
    resources: dict[str, str] = field(default_factory=dict)
    max_time: float | None = None
    default_time: float | None = None
    max_cores: int | None = None
    max_memory: int | None = None
    max_nodes: int | None = None
    max_pending: int = 200
    max_array: int = 500
    poll_interval: float = 10.0
    poll_longest: float = 60.0
    look_interval: float = 1.0
    command_timeout: float = 60.0
    retry_delays: tuple[float, ...] = (5.0, 15.0, 60.0, 300.0)
    exit_grace: float = 30.0
    unknown_after: float = 3600.0
    pilot_slots: int = 4
    pilot_time: float = 3600.0
    pilot_limit: int = 4
    pilot_idle: float = 60.0
    pilot_cooldown: float = 300.0
