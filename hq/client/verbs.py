"""The verbs of `hq-client`, one table: dispatch, help and completion come from it. What a verb does stands in the module it names."""

from __future__ import annotations

from hq.client.options import Option, seconds, size, utf8, whole_number, words_between_commas
from hq.client.submit_options import begin
from hq.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Older names of states, and what they are now.
STATE_ALIASES = {"pending": "starting", "ended": "finished", "done": "finished", "killed": "cancelled"}


def states(text: str) -> list[str]:
    """Read `running,failed`: states of tasks or outcomes. Raises InputError."""
    from hq.client.options import nearest
    from hq.model.states import Outcome, TaskState

    known = [each.value for each in (*TaskState, *Outcome)]
    found = []
    for part in words_between_commas(text):
        state = part.lower().replace("-", "_")
        state = STATE_ALIASES.get(state, state)
        if state not in known:
            raise InputError(f"there is no state '{part}'{nearest(part, known)} (there are {', '.join(known)})")
        found.append(state)
    return found


def since(text: str) -> float:
    """A moment in the past. Raises InputError."""
    import time

    from hq.client.moments import parse_moment

    return parse_moment(text, time.time(), is_past=True)


def limit(text: str) -> int | None:
    """A number of rows, or `all`. Raises ValueError."""
    return None if text == "all" else whole_number(1)(text)


JSON = Option("--json", "print JSON")
QUIET = Option("-q --quiet", "print ids only")
ETC = Option("--etc", "the instance's etc directory (HQ_ETC)", "DIR")
STATE = Option("--state", "only in these states or with these outcomes", "A,B", convert=states, is_list=True)
GROUP = Option("-g --group", "only of this group", "NAME", convert=utf8)
SINCE = Option("--since", "only submitted since then: 2h (ago), 18:00, 2026-03-01", "WHEN", convert=since)
LIMIT = Option("-n --limit", "how many rows at most (1000)", "N|all", convert=limit)
TASKS = Option("-t --tasks", "a row a task, of arrays too")
REASON = Option("--reason", "a word for the record", "TEXT", convert=utf8)
FILTERS = (STATE, GROUP, SINCE)
LIST = (LIMIT, TASKS, JSON, QUIET)

MODIFY = (
    Option("-p --priority", "0 to 127, higher first", "N", convert=whole_number(0, 127)),
    Option("--set-group", "another group", "NAME", convert=utf8, hidden="--new-group"),
    Option("-i --info-text", "another note", "TEXT", convert=utf8),
    Option("-H --hosts", "only on these hosts ('' for any)", "A,B"),
    Option("-E --exclude-hosts", "not on these hosts ('' for none)", "A,B", hidden="--excludeHosts"),
    Option("-Q --queue", "another queue", "NAME", convert=utf8),
    Option("--throttle", "tasks of an array at once", "N", convert=whole_number(1)),
    Option("--begin", "not before", "WHEN", convert=begin),
    Option("--after", "none: wait for no other job any more", "none", choices=("none",)),
    Option("--estimated-time", "how long it will probably take", "TIME", convert=seconds),
    Option("--estimated-memory", "how much it will probably use", "SIZE", convert=size),
)


class Verb:
    """A verb: how it is called, what it does in a sentence, its options, and where the function is.

    `place` is `module:function` below hq.client; the function takes (Call, words) and returns an exit code. `least` and
    `most` bound the number of words.
    """

    __slots__ = ("aliases", "args", "fixed", "least", "most", "name", "options", "place", "summary")

    def __init__(
        self, name: str, args: str, summary: str, place: str, options: tuple[Option, ...] = (), *,
        least: int = 0, most: int | None = None, aliases: str = "", fixed: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.args = args
        self.summary = summary
        self.place = place
        self.options = (*options, ETC, Option("-h --help", "show this help"))
        self.least = least
        self.most = most
        self.aliases = tuple(aliases.split())
        self.fixed = fixed or {}


SELECTION = "[SELECTION]"
WANTED = "SELECTION"

VERBS: tuple[Verb, ...] = (
    Verb("jobs", SELECTION, "list jobs: live ones and lately ended, or those selected", "listing:jobs", (*FILTERS, *LIST)),
    Verb("job", "[ID]", "everything about one job or task (the last one)", "showing:job", (JSON, QUIET), most=1, aliases="lajob"),
    Verb("status", "", "how your user-server and the cluster stand", "showing:facts", (JSON,), most=0, fixed={"what": "status"}),
    Verb("details", "[ID]", "a job like 'job ID', without ID your user-server like 'info'", "showing:details", (JSON, QUIET), most=1),
    Verb("cancel", WANTED, "end jobs, running or not", "acting:act", (*FILTERS, REASON, JSON, QUIET), fixed={"action": "cancel"}),
    Verb("hold", WANTED, "keep waiting jobs from starting", "acting:act", (*FILTERS, REASON, JSON, QUIET), fixed={"action": "hold"}),
    Verb("release", WANTED, "let held jobs start", "acting:act", (*FILTERS, REASON, JSON, QUIET), fixed={"action": "release"}),
    Verb("requeue", WANTED, "stop running jobs and start them again", "acting:act", (*FILTERS, REASON, JSON, QUIET), fixed={"action": "requeue"}),
    Verb("resolve", WANTED, "say what became of jobs whose host is lost", "acting:resolve",
         (Option("--as", "what it is from now on", "WHAT", choices=("ok", "failed", "lost", "requeue")), *FILTERS, REASON, JSON, QUIET)),
    Verb("modify", WANTED, "change what waiting jobs ask for", "acting:modify", (*MODIFY, *FILTERS, REASON, JSON, QUIET)),
    Verb("signal", "SELECTION SIGNAL", "send a signal to the processes of running jobs", "acting:signal",
         (Option("-s --signal", "the signal, by name or number", "SIGNAL"), *FILTERS, REASON, JSON, QUIET)),
    Verb("log", "[ID]", "print the output of a job or task (the last one)", "showing:log",
         (Option("-f --follow", "go on while it runs"), Option("--stderr", "standard error instead", key="stream", value="stderr"),
          Option("--log", "the file of --logfile instead", key="stream", value="log"),
          Option("--tail", "only the end, from so many bytes on", "SIZE", convert=size), Option("--path", "print where the file is")), most=1),
    Verb("wait", SELECTION, "wait until jobs have ended (all of yours); the exit code is theirs", "showing:wait", (*FILTERS, JSON, QUIET)),
    Verb("groups", "", "your groups, with jobs by state", "listing:groups", (JSON, QUIET), most=0, aliases="lsgroups"),
    Verb("group", "GROUP", "one group, with its jobs by state", "listing:groups", (JSON, QUIET), least=1, most=1, aliases="lagroup"),
    Verb("find", "TEXT", "jobs with TEXT in name, command, group or note", "listing:find", (STATE, SINCE, *LIST), least=1, aliases="findjobs"),
    Verb("audit", "[N]", "what was done about you, your jobs and keys, and by whom (the last 100)", "listing:audit", (JSON,), most=1),
    Verb("hosts", "", "the hosts of the cluster, and how yours there stand", "listing:hosts", (JSON, QUIET), most=0),
    Verb("lswjobs", "[N|all]", "waiting jobs", "listing:by_state", LIST, most=1, fixed={"states": ["waiting", "held"]}),
    Verb("lspjobs", "[N|all]", "starting jobs (the 'pending' of hQ)", "listing:by_state", LIST, most=1, fixed={"states": ["starting"]}),
    Verb("lsrjobs", "[N|all]", "running jobs", "listing:by_state", LIST, most=1, fixed={"states": ["running", "suspended", "host_lost"]}),
    Verb("lsfjobs", "[N|all]", "finished jobs, newest first (10)", "listing:by_state", LIST, most=1, fixed={"states": ["finished"], "limit": 10}),
    Verb("why", "[ID]", "why a job waits, where it runs, how it ended (the last one)", "showing:why", (JSON,), most=1),
    Verb("info", "", "facts about your user-server", "showing:facts", (JSON,), most=0, fixed={"what": "info"}),
    Verb("checkhost", "HOST", "prove that your jobs can run there: login, python, way back", "service:checkhost", (JSON,), least=1, most=1),
    Verb("keepalive", "[on|off|status]", "keep your user-server up when you log out (on)", "keepalive:keepalive", (JSON,), most=1),
    Verb("takeover", "", "move your user-server from another machine to this one", "takeover:takeover", (), most=0),
    Verb("shutdown", "", "stop your user-server; running jobs run on", "service:shutdown",
         (Option("--hosts", "its idle exec-servers too"),), most=0),
    Verb("ping", "", "is your user-server there?", "service:ping", (JSON,), most=0),
    Verb("enrol", "", "register your key with the server", "enrol:enrol",
         (Option("--token", "the one-time token that the owner gave you", "TOKEN", convert=utf8),
          Option("--public", "the key to register (yours)", "KEY", convert=utf8),
          Option("--sign-public", "the signing key that goes with it", "KEY", convert=utf8)), most=0),
    Verb("completion", "bash|zsh|fish", "print a completion script for your shell", "completion:completion", (), least=1, most=1),
    Verb("help", "[VERB]", "show the verbs, or one", "commands:show_help", (), most=1),
)  # fmt: skip

BY_NAME: dict[str, Verb] = {name: verb for verb in VERBS for name in (verb.name, *verb.aliases)}
