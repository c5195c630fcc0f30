"""What the cluster's owner decides: hosts, users, keys, scheduling on and off. The caller has checked that he is an administrator."""

from __future__ import annotations

from dataclasses import replace

from hq.core import ahead
from hq.core.drains import set_deadline
from hq.core.events import (
    AnnounceHosts,
    ClusterSwitched,
    ConfigurationRead,
    DropKeys,
    HostRowChanged,
    HostSwitched,
    KeyEnrolled,
    SlotsRecounted,
    UserSwitched,
)
from hq.core.hosts import HostState
from hq.core.state import State
from hq.errors import RefusedError
from hq.model.host import HostRecord, HostSpec
from hq.model.quantities import format_seconds
from hq.model.text import printable
from hq.model.user import UserRecord

#: The setting that keeps whether jobs are scheduled.
CLUSTER_ACTIVE = "cluster_active"


def configuration_read(state: State, event: ConfigurationRead) -> None:
    """Take `cluster.tab` and `users` as they are now. What their owner switched by command stays."""
    if event.hosts is not None:
        listed = {spec.name for spec in event.hosts}
        is_news = False
        for spec in event.hosts:
            is_news = _list_host(state, spec) or is_news
        for name in [name for name in state.hosts if name not in listed]:
            is_news = _unlist_host(state, state.hosts[name]) or is_news
        if is_news:
            state.actions.append(AnnounceHosts())
    if event.users is not None:
        _read_users(state, event.users)
    if event.half_life is not None:
        state.share.set_half_life(event.half_life, state.now)


def _list_host(state: State, spec: HostSpec) -> bool:
    host = state.hosts.get(spec.name)
    if host is None:
        record = HostRecord(spec=spec, is_active=spec.is_active)
        state.save_host(state.add_host(record), record)
        return True
    if host.record.spec == spec and host.record.is_listed:
        return False
    state.save_host(host, replace(host.record, spec=spec, is_listed=True))
    return True


def _unlist_host(state: State, host: HostState) -> bool:
    if not host.tasks:
        state.drop_host(host.name)
        return True
    if host.record.is_listed:
        state.save_host(host, replace(host.record, is_listed=False))
        return True
    return False


def _read_users(state: State, users: tuple[UserRecord, ...]) -> None:
    listed = {user.name: user for user in users}
    for name, user in listed.items():
        known = state.users.get(name)
        # who is disabled was disabled by command, which a file without that column cannot know
        wanted = user if known is None else replace(user, is_enabled=user.is_enabled and known.is_enabled)
        if known != wanted:
            _save_user(state, wanted)
    for name in [name for name in state.users if name not in listed]:
        if name in state.jobs_of:
            if state.users[name].is_enabled:
                _save_user(state, replace(state.users[name], is_enabled=False))
        else:
            _drop_keys(state, name, forever=True)
            del state.users[name]
            state.changes.users.pop(name, None)
            state.changes.users_removed.add(name)
            state.is_dirty = True


def _save_user(state: State, user: UserRecord) -> None:
    known = state.users.get(user.name)
    state.users[user.name] = user
    state.changes.users[user.name] = user
    state.changes.users_removed.discard(user.name)
    state.is_dirty = True
    if known is not None and known.is_enabled and not user.is_enabled:
        _drop_keys(state, user.name, forever=False)


def _drop_keys(state: State, user: str, *, forever: bool) -> None:
    keys = [key for key in state.keys.values() if key.user == user]
    if forever:
        for key in keys:
            if key.is_enabled:
                state.keys[key.public] = state.changes.keys[key.public] = replace(key, is_enabled=False)
    if keys:
        state.actions.append(DropKeys(tuple(key.public for key in keys)))


def host_switched(state: State, event: HostSwitched) -> None:
    """Activate, deactivate or drain a host."""
    host = state.hosts.get(event.host)
    if host is None:
        state.reply(event.token, no_host(state, event.host))
        return
    record = host.record
    runs = len(host.tasks)
    rest = f"; {runs} task{'s' if runs != 1 else ''} there run on" if runs else ""
    if event.drain_reason is not None:
        record, text = replace(record, drain_reason=event.drain_reason), f"{event.host} is draining: nothing new is placed there{rest}"
    elif event.is_active:
        record, text = replace(record, is_active=True, drain_reason=None), f"{event.host} is active"
        state.health.open(state, event.host, "opened by command", event.actor)
    else:
        record, text = replace(record, is_active=False), f"{event.host} is not active: nothing new is placed there{rest}"
    is_draining = event.drain_reason is not None
    set_deadline(state, event.host, event.deadline if is_draining else None)
    if is_draining and event.deadline is not None:
        text += f"; in {format_seconds(max(0.0, event.deadline - state.now))} what may run again is stopped there and starts elsewhere"
    action = "drain" if event.drain_reason is not None else "activatehost" if event.is_active else "deactivatehost"
    if record != host.record:
        state.save_host(host, record)
        if host.closed() is not None:
            ahead.give_back_all(state, host)
        state.audit(event.actor, action, "", event.host, event.drain_reason or "")
    state.reply(event.token, text)


def no_host(state: State, name: str) -> RefusedError:
    """The error for a host that is not ours."""
    known = ", ".join(sorted(state.hosts)[:20])
    return RefusedError(f"there is no host '{printable(name)}'; known hosts: {known or 'none'}")


def host_row_changed(state: State, event: HostRowChanged) -> None:
    """addhost, removehost."""
    host = state.hosts.get(event.host)
    if event.spec is not None:
        assert event.spec.name == event.host
        if host is not None and host.record.is_listed:
            state.reply(event.token, RefusedError(f"there is a host '{event.host}' already"))
            return
        _list_host(state, event.spec)
        text = f"{event.host} was added with {event.spec.slots} slot{'s' if event.spec.slots != 1 else ''}"
    elif host is None or not host.record.is_listed:
        state.reply(event.token, no_host(state, event.host))
        return
    else:
        runs = len(host.tasks)
        _unlist_host(state, host)
        text = f"{event.host} was removed"
        if runs:
            text = f"{event.host} takes nothing new and goes when its {runs} running tasks have ended"
    state.audit(event.actor, "addhost" if event.spec is not None else "removehost", "", event.host)
    state.actions.append(AnnounceHosts())
    state.reply(event.token, text)


def cluster_switched(state: State, event: ClusterSwitched) -> None:
    """Scheduling on or off."""
    word = "active" if event.is_active else "not active: nothing is started until it is activated, what runs runs on"
    if state.is_active != event.is_active:
        state.is_active = event.is_active
        state.changes.settings[CLUSTER_ACTIVE] = "1" if event.is_active else "0"
        state.is_dirty = True
        state.audit(event.actor, "activate" if event.is_active else "deactivate", "", "cluster")
    state.reply(event.token, f"the cluster is {word}")


def user_switched(state: State, event: UserSwitched) -> None:
    """adduser, enableuser, disableuser: the user as he should be."""
    name = event.user.name
    known = state.users.get(name)
    _save_user(state, event.user)
    if known is None:
        action, text = "adduser", f"the user {name} was added"
    elif event.user.is_enabled:
        action, text = "enableuser", f"the user {name} is enabled"
    else:
        runs = sum(state.jobs[id].placed for id in state.jobs_of.get(name, {}))
        action, text = "disableuser", f"the user {name} is disabled: his jobs wait" + (f", {runs} running tasks run on" if runs else "")
    state.audit(event.actor, action, name, name)
    state.reply(event.token, text)


def key_enrolled(state: State, event: KeyEnrolled) -> None:
    """A key was proven, or revoked: that is noted in the name of who did it."""
    state.keys[event.key.public] = state.changes.keys[event.key.public] = event.key
    if event.key.is_enabled:
        target = f"{event.key.role.value} {event.key.public}"
        state.audit(event.key.user, "enrol", event.key.user, target, event.key.proof, role=event.key.role.value)
    state.reply(event.token, event.key)


def slots_recounted(state: State, event: SlotsRecounted) -> None:
    """updateslots: count again from the tasks, and say whether it differed."""
    counted = dict.fromkeys(state.hosts, 0)
    for job in state.jobs.values():
        for task in job.tasks.values():
            if task.state.is_placed:
                counted[task.host] += task.slots
    noted = {name: host.occupied for name, host in state.hosts.items()}
    wrong = [f"{name}: {noted[name]} noted, {count} counted" for name, count in counted.items() if noted[name] != count]
    for name, count in counted.items():
        state.hosts[name].occupied = count
        state.note_room(state.hosts[name])
    state.is_dirty = state.is_dirty or bool(wrong)
    total = sum(counted.values())
    state.reply(event.token, "differed and was put right: " + "; ".join(wrong) if wrong else f"{total} slots are occupied, as noted")
