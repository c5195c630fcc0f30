"""Whether a demand can be met at all, and what stands against it now on each host. Shared by submission, modify, dry run and explain."""

from __future__ import annotations

from hq.core.hosts import PLACEABLE_BACKENDS, HostState
from hq.core.jobs import Shape
from hq.core.links import CLOSED_LINKS
from hq.core.state import State
from hq.errors import InputError, NeverError
from hq.model.quantities import format_bytes
from hq.model.states import LinkState
from hq.model.text import printable


def check_host_names(state: State, names: tuple[str, ...], option: str) -> None:
    """Refuse names that are no host of ours. Raises InputError that names the known ones."""
    unknown = [name for name in names if name not in state.hosts]
    if unknown:
        known = ", ".join(sorted(state.hosts)[:20]) + (", …" if len(state.hosts) > 20 else "")
        raise InputError(f"{option}: there is no host '{printable(unknown[0])}'; known hosts: {known or 'none'}")


def check_possible(state: State, shape: Shape) -> None:
    """Refuse a demand that no host could meet if it were empty.

    Raises NeverError with the largest available, InputError for an unknown queue.
    """
    hosts = [host for host in state.hosts.values() if host.record.is_listed and host.record.spec.backend in PLACEABLE_BACKENDS]
    if not hosts:
        raise NeverError("the cluster has no host that could run a job: its owner adds them to cluster.tab")
    if shape.queue:
        queues = sorted({host.record.spec.queue for host in hosts} - {""})
        if shape.queue not in queues:
            raise InputError(f"there is no queue '{printable(shape.queue)}'; known queues: {', '.join(queues) or 'none'}")
    hosts = [host for host in hosts if _is_chosen(shape, host)]
    if not hosts:
        raise NeverError("no host is left by the wishes for hosts, excluded hosts and queue")
    where = "any host that the job may use" if shape.hosts or shape.exclude or shape.queue else "any host"
    most = max(host.record.spec.slots for host in hosts)
    if shape.slots > most:
        raise NeverError(f"{shape.slots} slots were asked for; the most that {where} has is {most}")
    memories = [host.record.spec.memory for host in hosts if host.record.spec.slots >= shape.slots]
    if shape.memory and all(memory is not None and memory < shape.memory for memory in memories):
        largest = format_bytes(max(memory or 0 for memory in memories))
        asked = format_bytes(shape.memory)
        raise NeverError(f"{asked} of memory were asked for; the most that {where} with {shape.slots} slot{'s' if shape.slots > 1 else ''} has is {largest}")
    for name, count in shape.resources:
        most = max(host.record.spec.resources.get(name, 0) for host in hosts)
        if count > most:
            raise NeverError(f"{count} of '{printable(name)}' were asked for; the most that {where} has is {most}")
    if all(_lacks(shape, host) for host in hosts):
        raise NeverError("no single host has the slots, the memory and the resources together that were asked for")


def _is_chosen(shape: Shape, host: HostState) -> bool:
    return (
        (not shape.hosts or host.name in shape.hosts)
        and host.name not in shape.exclude
        and (not shape.queue or host.record.spec.queue == shape.queue)
    )


def _lacks(shape: Shape, host: HostState) -> str:
    """What a host has too little of even when it is empty, in words; nothing if it is large enough."""
    spec = host.record.spec
    words = [f"{spec.slots} slots"] if spec.slots < shape.slots else []
    if shape.memory and spec.memory is not None and spec.memory < shape.memory:
        words.append(f"{format_bytes(spec.memory)} of memory")
    for name, count in shape.resources:
        if (there := spec.resources.get(name, 0)) < count:
            words.append(f"{there or 'no'} {printable(name)}")
    return " and ".join(words)


def refusal(state: State, shape: Shape, host: HostState, now: float) -> tuple[str, str] | None:
    """Why a host does not take a task of this shape now, as (kind, words); None: it would."""
    spec = host.record.spec
    if closed := host.closed():
        return "closed", closed
    if not _is_chosen(shape, host):
        return "wishes", "is not among the hosts that the job asks for"
    if lacks := _lacks(shape, host):
        return "too small", f"has {lacks} in all"
    link = state.link(shape.user, host.name)
    if link.state in CLOSED_LINKS:
        if link.state is LinkState.FAILED:
            return "link", f"your exec-server could not be started there: {printable(link.reason) or 'no reason was given'}"
        return "link", f"your exec-server there is silent: {printable(link.reason) or 'no heartbeat'}"
    if host.free < shape.slots:
        return "full", f"has {host.free} of {spec.slots} slots free"
    memory = host.memory_free()
    if shape.memory and memory is not None and memory < shape.memory:
        return "memory", f"has {format_bytes(max(memory, 0))} of {format_bytes(spec.memory)} memory free"
    for name, count in shape.resources:
        if host.resource_free(name) < count:
            return "resource", f"has {max(host.resource_free(name), 0)} of {spec.resources.get(name, 0)} '{printable(name)}' free"
    headroom = host.headroom(now)
    if headroom is not None and headroom + 1e-9 < shape.slots and host.occupied:
        sample = host.fresh_sample(now)
        return "load", f"is busy: load {sample.load1 if sample else 0:.1f} on {spec.total} slots"
    return None
