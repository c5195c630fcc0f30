"""admin.run: an administrator's command. The commands are in `admin_commands`; this finds the one that is meant and answers."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hq.errors import UsageError
from hq.protocol.admin import AdminRun
from hq.protocol.base import Message
from hq.server import admin_commands
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

MAX_WORDS = 1000
MAX_WORD = 4096


def split_words(words: tuple[str, ...]) -> list[str]:
    """`activatehost:localhost` is `activatehost localhost`: each colon of the first word up to the command's arguments separates one."""
    if not words:
        return []
    verb, colon, rest = words[0].partition(":")
    if not colon:
        return list(words)
    command = admin_commands.COMMANDS.get(verb)
    many = command.at_most if command is not None else 1
    return [verb, *rest.split(":", max(0, many - 1)), *words[1:]]


def run(server: Server, request: Request, message: AdminRun) -> None:
    """Run it. Raises HqError."""
    words = split_words(message.words)
    if not words or len(words) > MAX_WORDS or any(len(word) > MAX_WORD for word in words):
        raise UsageError("what should be done? 'hq-admin help' lists the commands")
    verb, arguments = words[0], words[1:]
    command = admin_commands.COMMANDS.get(verb)
    if command is None:
        near = get_close_matches(verb, admin_commands.COMMANDS, 1)
        hint = f"did you mean '{near[0]}'?" if near else "'hq-admin help' lists the commands"
        raise UsageError(f"there is no command '{verb[:40]}': {hint}")
    if not command.at_least <= len(arguments) <= command.at_most:
        raise UsageError(f"usage: hq-admin {command.usage}")
    if command.is_change:
        server.log.category("requests").info("%s: %s", request.caller.user, " ".join(words))
    command.run(server, request, arguments)


HANDLERS: dict[type[Message], Any] = {AdminRun: run}
