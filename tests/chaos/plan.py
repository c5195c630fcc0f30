"""What a chaos run does and when, from its seed alone: submissions and faults. Pure.

A moment is in seconds from the start. How far the system has come by then is not in our hands; the same seed injects the same.
A plan of many faults has each kind at least once.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_MINUTE = " for a minute"
#: Faults and how often each is chosen.
KINDS = {
    "kill server": 4, "stop server": 2, "kill database": 3, "stop database": 1, "kill user-server": 4, "stop user-server": 2,
    "kill worker": 5, "stop worker": 2, "kill supervisor": 3, "stop supervisor": 1, "kill both": 2, "cut host": 4, "power off host": 2,
    "reboot host": 2, "reboot server's machine": 1, "fill spool": 2, "fill database": 2, "fill output": 2, "cut host for ever": 1,
    **{f"stop {what}{_MINUTE}": 1 for what in ("server", "user-server", "worker", "supervisor", "database")},
}  # fmt: skip
#: At most one of these in a plan: with more of them nothing else would be seen to happen.
ONCE = frozenset({"cut host for ever", *(kind for kind in KINDS if kind.endswith(_MINUTE))})
FOR_EVER = float("inf")
#: Seconds that a fault of a kind lasts, from and to; those that are not here need no end.
LENGTHS = {
    "kill server": (0.0, 3.0), "stop server": (0.5, 6.0), "kill database": (0.0, 5.0), "stop database": (0.5, 5.0), "stop user-server": (0.5, 6.0),
    "stop worker": (0.5, 6.0), "stop supervisor": (0.5, 6.0), "cut host": (0.5, 18.0), "power off host": (0.5, 6.0), "reboot host": (0.5, 4.0),
    "reboot server's machine": (0.5, 4.0), "fill spool": (0.5, 5.0), "fill database": (0.5, 8.0), "fill output": (0.5, 8.0),
    "cut host for ever": (FOR_EVER, FOR_EVER), **{kind: (60.0, 60.0) for kind in KINDS if kind.endswith(_MINUTE)},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, what, how long, and to whom it is done (host and user count where the kind asks for them)."""

    at: float
    kind: str
    length: float
    host: str
    user: str


@dataclass(frozen=True, slots=True)
class Submission:
    """One hq-submit: an array of `tasks`, or with `is_array` false a jobs file of so many plain jobs. `kind` as in task.sh."""

    at: float
    name: str
    user: str
    tasks: int
    is_array: bool
    kind: str
    retries: int
    is_rerunnable: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a run. `seconds`: when the last fault begins."""

    faults: tuple[Fault, ...]
    submissions: tuple[Submission, ...]
    seconds: float


def make_plan(seed: int, faults: int, tasks: int, hosts: tuple[str, ...], users: tuple[str, ...], kinds: tuple[str, ...] = ()) -> Plan:
    """The plan of a seed. `kinds`: only these faults."""
    random = Random(seed)
    made: list[Fault] = []
    at = 3.0
    left = _kinds(random, faults, kinds)
    while left:
        at += random.uniform(0.3, 3.0)
        for _ in range(min(random.choice((1, 1, 1, 2, 3)), len(left))):
            kind = left.pop()
            length = random.uniform(*LENGTHS.get(kind, (0.0, 0.0))) if LENGTHS.get(kind) != (FOR_EVER, FOR_EVER) else FOR_EVER
            made.append(Fault(round(at, 2), kind, round(length, 2), random.choice(hosts), random.choice(users)))
    return Plan(tuple(made), tuple(_submissions(random, tasks, users, at)), at)


def _kinds(random: Random, count: int, only: tuple[str, ...]) -> list[str]:
    chosen = {kind: weight for kind, weight in KINDS.items() if not only or kind in only}
    many = {kind: weight for kind, weight in chosen.items() if kind not in ONCE}
    made = list(chosen) if count >= 2 * len(chosen) else []
    made += random.choices(list(many or chosen), list((many or chosen).values()), k=count - len(made))
    random.shuffle(made)
    return made


def _submissions(random: Random, tasks: int, users: tuple[str, ...], seconds: float) -> list[Submission]:
    made: list[Submission] = []
    left = tasks
    while left > 0:
        is_array = random.random() < 0.5
        count = min(left, random.randint(20, 150) if is_array else random.randint(3, 40))
        kind = random.choice(("good", "good", "some-fail", "fails", "flaky"))
        retries = random.choice((1, 2)) if kind == "flaky" else random.choice((0, 0, 0, 1))
        is_rerunnable = random.random() < (0.75 if is_array else 0.25)
        made.append(Submission(0.0, f"chaos-{len(made)}", random.choice(users), count, is_array, kind, retries, is_rerunnable))
        left -= count
    # the last tenth of the time is left to what has been submitted
    step = 0.9 * seconds / max(1, len(made))
    return [Submission(round(number * step, 2), *(getattr(each, name) for name in Submission.__slots__[1:])) for number, each in enumerate(made)]
