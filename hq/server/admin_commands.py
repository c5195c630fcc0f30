"""The registry of administrators' commands: verb, arguments, a line of help, function. `hq-admin help` is made from it.

The functions are in `admin_hosts`, `admin_users`, `admin_jobs` and `admin_daemon`; each answers its request now or with the core's reply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hq.errors import UsageError
from hq.protocol.admin import AdminAnswer
from hq.server import admin_daemon, admin_hosts, admin_jobs, admin_users
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

Function = Callable[["Server", Request, list[str]], None]
MANY = 1000


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `arguments` as usage shows them; `is_change`: it is noted in the log."""

    verb: str
    arguments: str
    help: str
    run: Function
    at_least: int = 0
    at_most: int = 0
    is_change: bool = True

    @property
    def usage(self) -> str:
        """Verb and arguments."""
        return f"{self.verb} {self.arguments}".rstrip()


def show_help(server: Server, request: Request, words: list[str]) -> None:
    """All commands, or those that begin with a word."""
    chosen = [command for command in COMMANDS.values() if not words or command.verb.startswith(words[0])]
    if not chosen:
        raise UsageError(f"no command begins with '{words[0][:40]}': 'hq-admin help' lists them")
    request.reply(AdminAnswer(columns=("command", "does"), rows=tuple((command.usage, command.help) for command in chosen)))


def _read(verb: str, arguments: str, text: str, run: Function, at_least: int = 0, at_most: int = 0) -> Command:
    return Command(verb, arguments, text, run, at_least, at_most, is_change=False)


_ALL = (
    _read("help", "[COMMAND]", "This list, or the commands that begin with COMMAND.", show_help, 0, 1),
    _read("info", "", "What hq-server is: version, instance, process, directories.", admin_daemon.info),
    _read("status", "", "Hosts, slots, jobs and tasks by state.", admin_daemon.status),
    _read("ping", "", "Whether hq-server answers.", admin_daemon.ping),
    _read("lscluster", "", "The hosts: state, load, slots, whose exec-servers are there.", admin_hosts.ls_cluster),
    Command("activatehost", "HOST", "New tasks may go to HOST; ends a drain.", admin_hosts.activate_host, 1, 1),
    Command("deactivatehost", "HOST", "Nothing new goes to HOST; what runs there runs on.", admin_hosts.deactivate_host, 1, 1),
    Command("drain", "HOST [REASON] [--deadline TIME]", "As deactivatehost, with a reason; after TIME what may run again leaves.", admin_hosts.drain, 1, MANY),
    Command("activate", "", "Switch scheduling on.", admin_hosts.activate_cluster),
    Command("activatecluster", "", "The same as activate.", admin_hosts.activate_cluster),
    Command("deactivate", "", "Switch scheduling off: nothing new starts anywhere, what runs runs on.", admin_hosts.deactivate_cluster),
    Command("deactivatecluster", "", "The same as deactivate.", admin_hosts.deactivate_cluster),
    Command("addhost", "NAME:SLOTS[:TRANSPORT] [COLUMN=VALUE...]", "Add a host, also to cluster.tab. TRANSPORT: ssh, openssh, local.",
            admin_hosts.add_host, 1, 20),
    Command("removehost", "HOST", "Take HOST out, also of cluster.tab; what runs there runs on.", admin_hosts.remove_host, 1, 1),
    Command("updateslots", "", "Count occupied slots anew from the tasks, and say whether they differed.", admin_hosts.update_slots),
    Command("reload", "", "Read cluster.tab, users and hq.yaml again.", admin_daemon.reload),
    _read("lsusers", "", "The users.", admin_users.ls_users),
    Command("adduser", "NAME [ROLES]", "Add a user (roles: user, admin), also to the file users; prints a token for his first key.",
            admin_users.add_user, 1, 2),
    Command("enableuser", "NAME", "Let a user in again.", admin_users.enable_user, 1, 1),
    Command("disableuser", "NAME", "Keep a user out; his running jobs run on.", admin_users.disable_user, 1, 1),
    _read("lskeys", "[USER]", "Registered keys and how they were proven.", admin_users.ls_keys, 0, 1),
    Command("revokekey", "KEY", "A key (or its beginning, 8 characters or more) is out from now on.", admin_users.revoke_key, 1, 1),
    Command("forgetledger", "USER", "After a restore: wait no longer for USER's ledger; his jobs are held until they are released.",
            admin_users.forget_ledger, 1, 1),
    _read("lsjobs", "[USER]", "Jobs of everybody or of one user, live and lately ended.", admin_jobs.ls_jobs, 0, 1),
    Command("cancel", "IDS", "Cancel jobs of anybody.", admin_jobs.cancel, 1, MANY),
    Command("requeue", "IDS", "Run again what its owner signed rerunnable.", admin_jobs.requeue, 1, MANY),
    Command("hold", "IDS", "Hold waiting jobs of anybody.", admin_jobs.hold, 1, MANY),
    Command("release", "IDS", "Let held jobs wait again.", admin_jobs.release, 1, MANY),
    _read("audit", "[USER]", "Who did what to whose things, the latest first.", admin_jobs.audit, 0, 1),
    _read("lslogger", "", "Log categories and whether they are on.", admin_daemon.ls_logger),
    Command("activatelogger", "CATEGORY", "Switch a log category on.", admin_daemon.activate_logger, 1, 1),
    Command("deactivatelogger", "CATEGORY", "Switch a log category off.", admin_daemon.deactivate_logger, 1, 1),
    _read("lsloops", "", "What hq-server does every so often.", admin_daemon.ls_loops),
    Command("setloopinterval", "NAME SECONDS", "Change the interval of a loop until the next start.", admin_daemon.set_loop_interval, 2, 2),
    Command("shutdown", "", "Stop hq-server in good order; jobs run on.", admin_daemon.shutdown),
)  # fmt: skip

COMMANDS = {command.verb: command for command in _ALL}
