"""What is imitated around the daemons: a machine's processes, which outlive them, the backend that a worker sees of those, a user's command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hq.execserver.backends.base import Ended, Launch, NoteStatus, Seen, Started
from hq.kernel.clock import Clock
from hq.model.ids import AttemptKey, TaskKey
from hq.protocol.base import Message


@dataclass(slots=True)
class Process:
    """A process of the imitated machine."""

    key: AttemptKey
    tag: str
    pid: int
    end_at: float
    code: int | None = 0
    signal: int | None = None


@dataclass(slots=True)
class Machine:
    """What outlives every daemon: processes, and the true list of starts."""

    processes: dict[str, Process] = field(default_factory=dict)
    starts: list[AttemptKey] = field(default_factory=list)

    def started(self, task: TaskKey) -> int:
        """How often a task was really started."""
        return sum(key.task == task for key in self.starts)

    def ends(self, task: TaskKey) -> list[int | None]:
        """The exit codes with which its processes ended or will end."""
        return [each.code for each in self.processes.values() if each.key.task == task]


class FakeBackend:
    """As Backend. The command is `run SECONDS CODE`; with `CODE/CODE` the first attempt has the first."""

    is_watching_leftovers = False

    def __init__(self, machine: Machine, clock: Clock, note: NoteStatus, point: Callable[[], None]) -> None:
        self._machine = machine
        self._clock = clock
        self._point = point
        self._note = note
        self._live: dict[AttemptKey, str] = {}
        self._ended: list[Ended] = []

    def start(self, launch: Launch) -> Started:
        """As Backend.start."""
        machine, now = self._machine, self._clock.now().wall
        codes = [int(word) for word in launch.argv[2].split(b"/")]
        code = codes[min(launch.key.attempt, len(codes)) - 1]
        process = Process(launch.key, launch.tag, 1000 + len(machine.starts), now + float(launch.argv[1]), code)
        machine.starts.append(launch.key)
        machine.processes[launch.tag] = process
        self._live[launch.key] = launch.tag
        self._point()
        return Started(process.pid, process.pid)

    def adopt(self, key: AttemptKey, tag: str, pid: int, starttime: int, since: int | None = None) -> None:
        """As Backend.adopt."""
        self._live[key] = tag

    def reap(self, wall: float) -> None:
        """As ProcessBackend.reap."""
        for key, tag in list(self._live.items()):
            process = self._machine.processes.get(tag)
            if process is None:
                self._ended.append(Ended(key=key, is_never=True, reason="there is no process of it"))
            elif process.end_at <= self._clock.now().wall:
                self._note(key, process.code, process.signal)
                self._ended.append(Ended(key=key, exit_code=process.code, signal=process.signal, at=process.end_at))
            else:
                continue
            del self._live[key]

    def poll(self, boot: float) -> tuple[list[Ended], list[AttemptKey]]:
        """As Backend.poll."""
        ended, self._ended = self._ended, []
        return ended, []

    def signal(self, key: AttemptKey, number: int, is_ending: bool) -> None:
        """As Backend.signal."""
        process = self._machine.processes.get(self._live.get(key, ""))
        now = self._clock.now().wall
        if process is not None and is_ending and process.end_at > now:
            process.end_at, process.code, process.signal = now, None, number

    def look(self) -> list[Seen]:
        """As Backend.look."""
        return []

    def forget(self, key: AttemptKey) -> None:
        """As Backend.forget."""


class Asker:
    """A command that waits for its answer."""

    is_gone = False
    has_room = True

    def __init__(self) -> None:
        self.answers: list[Message] = []

    def answer(self, message: Message, *, is_last: bool = True) -> None:
        """As Asker.answer."""
        self.answers.append(message)
