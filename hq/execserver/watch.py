"""Watches the output files of live runs against their limits, and the machine's load."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from hq.core.runner_events import Event, OutputExceeded, RunNoted
from hq.execserver.outputs import disk_size, trim
from hq.model.ids import AttemptKey
from hq.model.job import JobSpec
from hq.model.quantities import format_bytes
from hq.model.states import OutputAction
from hq.protocol.peers import HostLoad


@dataclass(slots=True)
class _Watched:
    stdout: bytes
    stderr: bytes
    outputs: tuple[tuple[int, int], ...]
    limit: int
    action: OutputAction
    streams: list[tuple[str, bytes, tuple[int, int]]] | None = None  # what there is to watch, known from the first look on
    is_hopeless: bool = False  # the file system cannot punch holes
    warned: set[str] = field(default_factory=set)

    def may_be_over(self) -> bool:
        """Whether a file of these names is over the limit, be it theirs or not. Most runs end small and before the first look."""
        for path in {self.stdout, self.stderr}:
            try:
                if os.stat(path).st_blocks * 512 > self.limit:
                    return True
            except OSError:
                pass
        return False

    def found(self) -> list[tuple[str, bytes, tuple[int, int]]]:
        """Name, path, device and inode of each file, once."""
        if self.streams is None:
            self.streams = []
            for name, path in (("stdout", self.stdout), ("stderr", self.stderr)):
                try:
                    found = os.stat(path)
                except OSError:
                    continue
                identity = (found.st_dev, found.st_ino)
                if identity in self.outputs and identity not in [each[2] for each in self.streams]:
                    self.streams.append((name, path, identity))
        return self.streams


class OutputWatch:
    """The output files of all live runs."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._runs: dict[AttemptKey, _Watched] = {}

    def add(self, key: AttemptKey, spec: JobSpec, stdout: bytes, stderr: bytes, outputs: tuple[tuple[int, int], ...]) -> None:
        """Watch a run. `outputs`: device and inode of those of its files that are regular, as the backend opened them."""
        if outputs and spec.output_limit > 0:
            self._runs[key] = _Watched(stdout, stderr, outputs, spec.output_limit, spec.output_action)

    def forget(self, key: AttemptKey) -> None:
        """The run is over."""
        self._runs.pop(key, None)

    def look(self) -> list[Event]:
        """Look at all sizes, trim what is to be trimmed, and say what the core must know."""
        return [event for key, run in self._runs.items() for event in self._look_at(key, run)]

    def last_look(self, key: AttemptKey) -> list[Event]:
        """The same for a run whose main process has just ended: it may have written all that it had since the last look."""
        run = self._runs.get(key)
        if run is None or (run.streams is None and not run.may_be_over()):
            return []
        return self._look_at(key, run, is_last=True)

    def _look_at(self, key: AttemptKey, run: _Watched, *, is_last: bool = False) -> list[Event]:
        events: list[Event] = []
        for name, path, identity in run.found():
            size = disk_size(path, identity)
            if size is None or size <= run.limit:
                continue
            if run.action is OutputAction.STOP and not is_last:
                run.warned.add(name)  # the end of the run says it, once
                events.append(OutputExceeded(key, f"{name} grew to {format_bytes(size)}, over the limit of {format_bytes(run.limit)}"))
            elif run.action is not OutputAction.TRIM or run.is_hopeless:
                if name not in run.warned:
                    run.warned.add(name)
                    self._note(f"{key}: {name} is over its limit of {format_bytes(run.limit)}")
                    events.append(RunNoted(key, f"{name} grew over the limit of {format_bytes(run.limit)}"))
            else:
                events.extend(self._trim(key, run, name, path, identity))
        return events

    def _trim(self, key: AttemptKey, run: _Watched, name: str, path: bytes, identity: tuple[int, int]) -> list[Event]:
        try:
            freed = trim(path, run.limit, identity)
        except OSError as error:
            run.is_hopeless = True
            self._note(f"{key}: {name} is over its limit and cannot be trimmed: {error}")
            return [RunNoted(key, f"{name} grew over the limit of {format_bytes(run.limit)}; this file system cannot trim it")]
        if not freed:
            return []
        self._note(f"{key}: {name} trimmed, {format_bytes(freed)} given back")
        return [RunNoted(key, f"{name} grew over the limit of {format_bytes(run.limit)}: its middle was cut out")]


def host_load(host: str) -> HostLoad:
    """Load and memory of this machine now."""
    load1, load5, load15 = os.getloadavg()
    memory = {"MemTotal": 0, "MemAvailable": 0}
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in memory:
                    memory[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return HostLoad(host=host, load1=load1, load5=load5, load15=load15, cores=os.cpu_count() or 1,
                    memory_total=memory["MemTotal"], memory_free=memory["MemAvailable"])  # fmt: skip
