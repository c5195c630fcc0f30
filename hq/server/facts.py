"""What is told of one job beside its row: the facts of the request, and how an ended one ended."""

from __future__ import annotations

from hq.model.job import JobRecord, TaskRecord
from hq.model.quantities import format_bytes, format_seconds
from hq.model.rows import Row
from hq.model.states import Outcome
from hq.model.text import printable

Fact = str | int | float | bool | None


def job_facts(job: JobRecord, task: TaskRecord | None, *, is_owner: bool) -> dict[str, Fact]:
    """The facts of the request in the order in which they are shown. An administrator sees no paths."""
    spec, wishes = job.spec, job.wishes
    found: dict[str, Fact] = {
        "group": wishes.group, "info": wishes.info, "priority": wishes.priority, "slots": spec.slots,
        "memory": format_bytes(spec.memory), "time_limit": format_seconds(spec.time_limit), "grace": format_seconds(spec.grace),
        "estimated_time": format_seconds(wishes.estimated_time), "estimated_memory": format_bytes(wishes.estimated_memory),
        "resources": " ".join(f"{name}={count}" for name, count in sorted(spec.resources.items())),
        "hosts": ",".join(wishes.hosts), "exclude": ",".join(wishes.exclude), "queue": wishes.queue, "array": spec.indices,
        "throttle": wishes.throttle, "begin": wishes.begin, "after": ",".join(map(str, wishes.after)), "after_any": ",".join(map(str, wishes.after_any)), "is_held": wishes.is_held, "is_rerunnable": spec.is_rerunnable,
        "retries": spec.retries, "nice": spec.nice, "mode": spec.mode, "umask": f"{spec.umask:03o}",
    }  # fmt: skip
    if is_owner:
        found.update(
            {
                "chdir": printable(spec.cwd), "shell": printable(spec.shell) if spec.is_shell else None,
                "script": bool(spec.script), "stdin": printable(spec.stdin) or "/dev/null", "stdout": printable(spec.stdout),
                "stderr": printable(spec.stderr), "logfile": printable(spec.logfile), "output_limit": format_bytes(spec.output_limit),
                "output_limit_action": spec.output_action.value,
            }  # fmt: skip
        )
    if task is not None:
        found["pid"] = task.pid
    return {name: value for name, value in found.items() if value not in ("", None, "-")}


_WORDS = {
    Outcome.OK: "It ended well", Outcome.CANCELLED: "It was cancelled", Outcome.TIMEOUT: "It was ended at its time limit",
    Outcome.MEMORY: "It was ended at its memory limit", Outcome.LOST: "It was lost",
    Outcome.REFUSED: "It was refused: it can never run",
}  # fmt: skip


def ended_row_sentences(row: Row) -> list[str]:
    """How the tasks of an array ended, or one that has no record of its own, in sentences."""
    if not row.array:
        return [f"{_WORDS.get(Outcome(row.outcome), 'It ended') if row.outcome else 'It ended'}.", *([f"Reason: {row.reason}"] if row.reason else [])]
    outcomes = {state.partition(":")[2]: count for state, count in row.tasks.items() if ":" in state}
    words = ", ".join(f"{count:,} {name}" for name, count in outcomes.items())
    sentences = [f"{row.task} has ended, an array of {sum(outcomes.values()):,} tasks: {words}."]
    if bad := [name for name in outcomes if name != Outcome.OK.value]:
        sentences.append(f"hq-client jobs {row.task} --tasks --state {','.join(bad)} lists those that did not end well.")
    if row.reason:
        sentences.append(f"Reason of the gravest: {row.reason}")
    return sentences


def ended_sentences(task: TaskRecord) -> list[str]:
    """How an ended task ended, in sentences."""
    if task.outcome is Outcome.FAILED:
        words = f"It failed by signal {task.signal}" if task.signal else f"It failed with exit code {task.exit_code}"
    else:
        words = _WORDS.get(task.outcome or Outcome.OK, "It ended")
    where = f" on {task.host}" if task.host else ""
    sentences = [f"{words}{where}{f' (attempt {task.attempt})' if task.attempt > 1 else ''}."]
    if task.started is not None and task.ended is not None:
        sentences.append(f"It ran for {format_seconds(max(0.0, task.ended - task.started))}.")
    elif not task.started:
        sentences.append("It never started.")
    if task.reason:
        sentences.append(f"Reason: {task.reason}")
    return sentences
