"""Deadlines of drains: when one comes, what may run again is stopped on the host and waits for another; the rest runs on there.

Kept as settings of the instance, so that a restart knows them.
"""

from __future__ import annotations

from dataclasses import replace

from hq.core.hosts import HostState
from hq.core.reports import order_stop_of
from hq.core.state import State
from hq.model.states import Outcome

_SETTING = "drain_deadline."


def restore_deadlines(state: State, settings: dict[str, str]) -> None:
    """Read them back."""
    for name, value in settings.items():
        if name.startswith(_SETTING) and value:
            state.drains[name.removeprefix(_SETTING)] = float(value)


def set_deadline(state: State, host: str, deadline: float | None) -> None:
    """The drain of a host has this deadline (Unix time), or none (any more)."""
    if deadline is None and host not in state.drains:
        return
    if deadline is None:
        del state.drains[host]
    else:
        state.drains[host] = deadline
    state.changes.settings[_SETTING + host] = "" if deadline is None else repr(deadline)


def let_time_pass(state: State) -> None:
    """Do what is due now."""
    for name in [name for name, deadline in state.drains.items() if deadline <= state.now]:
        set_deadline(state, name, None)
        host = state.hosts.get(name)
        if host is not None and host.record.drain_reason is not None:
            _requeue(state, host)


def _requeue(state: State, host: HostState) -> None:
    reason = f"{host.name} is drained" + (f": {host.record.drain_reason}" if host.record.drain_reason else "")
    for key in sorted(host.tasks):
        job = state.jobs[key.job]
        task = job.tasks[key.index]
        if job.record.spec.is_rerunnable and task.outcome is None:
            task = replace(task, outcome=Outcome.LOST, reason=reason)
            state.put(job, task)
            order_stop_of(state, task)
