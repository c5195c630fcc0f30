"""Administrators' commands about the daemon itself: facts, log, loops, reload, shutdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hq.errors import UsageError
from hq.kernel.config import read_server_config
from hq.protocol.admin import AdminAnswer
from hq.server.configuration import read_configuration
from hq.server.handlers_peers import facts_of
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server


def _facts(server: Server, request: Request, what: str) -> None:
    request.reply(AdminAnswer(columns=("fact", "value"), rows=tuple((name, _cell(value)) for name, value in facts_of(server, what).items())))


def _cell(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)


def info(server: Server, request: Request, words: list[str]) -> None:
    """What hq-server is."""
    _facts(server, request, "info")


def status(server: Server, request: Request, words: list[str]) -> None:
    """What it has to do."""
    _facts(server, request, "status")


def ping(server: Server, request: Request, words: list[str]) -> None:
    """It answers."""
    request.reply(AdminAnswer(text="pong"))


def reload_now(server: Server) -> str:
    """Read the files again. Raises InputError, and then everything stays as it was."""
    config = read_server_config(server.etc)
    event = read_configuration(server.etc, config)
    before, server.config = server.config, config
    for name, old, new in (("heartbeat", before.heartbeat, config.heartbeat), ("probe", before.probe_interval, config.probe_interval)):
        if old != new:
            server.timers.set_interval(name, new)
    server.log.set_level(config.log_level)
    server.log.reopen()
    server.add(event)
    assert event.hosts is not None and event.users is not None
    text = f"read again: {len(event.hosts)} hosts, {len(event.users)} users, hq.yaml"
    if (config.bind, config.port, config.var, config.instance) != (before.bind, before.port, before.var, before.instance):
        text += "; bind, port, var and instance count from the next start"
    return text


def reload(server: Server, request: Request, words: list[str]) -> None:
    """Read cluster.tab, users and hq.yaml again."""
    text = reload_now(server)
    server.audit(request.caller.user, "admin", "reload", "", "configuration", text)
    server.after_commit(lambda: request.reply(AdminAnswer(text=text)))


def ls_logger(server: Server, request: Request, words: list[str]) -> None:
    """Log categories."""
    request.reply(AdminAnswer(columns=("category", "is on"), rows=tuple(server.log.categories().items())))


def activate_logger(server: Server, request: Request, words: list[str]) -> None:
    """Switch a category on."""
    server.log.set_category(words[0], True)
    request.reply(AdminAnswer(text=f"log category {words[0]} is on"))


def deactivate_logger(server: Server, request: Request, words: list[str]) -> None:
    """Switch a category off."""
    server.log.set_category(words[0], False)
    request.reply(AdminAnswer(text=f"log category {words[0]} is off"))


def ls_loops(server: Server, request: Request, words: list[str]) -> None:
    """Loops and their intervals."""
    request.reply(AdminAnswer(columns=("loop", "seconds"), rows=tuple(server.timers.intervals().items())))


def set_loop_interval(server: Server, request: Request, words: list[str]) -> None:
    """Change an interval."""
    try:
        seconds = float(words[1])
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"'{words[1][:40]}' is not a number of seconds")
    server.timers.set_interval(words[0], seconds)
    request.reply(AdminAnswer(text=f"loop {words[0]} turns every {seconds:g} s until the next start (hq.yaml says for how long after that)"))


def shutdown(server: Server, request: Request, words: list[str]) -> None:
    """Stop in good order; if the database does not take the record of it, without."""
    server.audit(request.caller.user, "admin", "shutdown", "", "hq-server")

    def go(text: str = "") -> None:
        if not server.ending.is_begun:
            request.reply(AdminAnswer(text=f"hq-server stops; running jobs run on{text}"))
            server.stop(server.now)

    def go_without() -> None:
        server.log.category("system").warning("stopped by %s without a record: the state database does not take it", request.caller.user)
        go(". The state database does not answer, so this stop is in the log only; what was not acknowledged is kept by who asked for it")

    server.after_commit(go)
    server.ending.order(server.now.boot, go_without)
