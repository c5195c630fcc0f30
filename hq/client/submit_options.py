"""The options of `hq-submit`, one table. What stands in it with a `key` of a job may also stand in a line of a jobs file."""

from __future__ import annotations

from hq.client.options import COMMON, Option, seconds, signal_number, size, utf8, whole_number, words_between_commas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "hq-submit [options] COMMAND [ARGUMENT…] | - | --script FILE [ARGUMENT…] | --jobs-file FILE"

DESCRIPTION = (
    "Submit a command to the cluster. Options end at the first word of the command. One word is a shell command line; several "
    "are an argument list and run exactly as given. '-' reads a script from standard input.\n\n"
    "The command runs in this directory, with this environment and umask, unless told otherwise."
)

FOOTER = """sizes: 512M, 2G, a bare number is megabytes. times: 90 (seconds), 5m, 1h30m, 1:30:00, 2-00:00:00.
paths may hold {job} {task} {index} {name} {host} {user}. arrays: 1-100, 1-100:2,7, 1-100%10 (ten at once).
exit code: 0 submitted, 1 refused, 2 wrong usage; with --wait the job's own."""


def resource(text: str) -> dict[str, int]:
    """Read `NAME=N`, or several between commas. Raises ValueError."""
    found: dict[str, int] = {}
    for part in words_between_commas(text):
        name, equals, number = part.partition("=")
        if not name or not equals:
            raise ValueError(f"'{part}' is not NAME=N")
        found[name] = whole_number(1)(number)
    return found


def variable(text: str) -> str:
    """Check `NAME=VALUE`. Raises ValueError."""
    name, equals, _ = text.partition("=")
    if not name or not equals:
        raise ValueError(f"'{text}' is not NAME=VALUE")
    return text


def array(text: str) -> tuple[str, int | None]:
    """The index set in its plain form, and the throttle. Raises InputError."""
    from hq.model.indexset import parse_array

    indices, throttle = parse_array(text)
    return str(indices), throttle


def begin(text: str) -> float:
    """A moment from now on. Raises InputError."""
    import time

    from hq.client.moments import parse_moment

    return parse_moment(text, time.time())


def job_ids(text: str) -> list[int]:
    """Read `12,13`. Raises ValueError."""
    return [whole_number(1)(part) for part in words_between_commas(text)]


def exit_codes(text: str) -> list[int]:
    """Read `1,75,137`. Raises ValueError."""
    return [whole_number(1, 255)(part) for part in words_between_commas(text)]


def early_signal(text: str) -> tuple[int, float]:
    """Read `USR1@120`: the signal's number, and seconds. Raises UsageError or InputError."""
    name, at, before = text.partition("@")
    return signal_number(name), seconds(before) if at else 60.0


def grace(text: str) -> float:
    """A duration that may be nothing. Raises InputError."""
    return 0.0 if text.strip() in ("0", "0s") else seconds(text)


#: Options that describe a job.
JOB_OPTIONS: tuple[Option, ...] = (
    Option("-c --slots", "slots that the job takes on its host (1)", "N", convert=whole_number(1)),
    Option("-n --name", "name of the job (the first word of the command)", "TEXT", convert=utf8),
    Option("-g --group", "label over jobs, to watch and cancel them together", "NAME", convert=utf8),
    Option("-i --info-text", "note kept with the job", "TEXT", convert=utf8, hidden="--infoText --info_text"),
    Option("-p --priority", "0 to 127 among your own jobs, higher first (0)", "N", convert=whole_number(0, 127)),
    Option("-E --exclude-hosts", "not on these hosts", "A,B", convert=words_between_commas, is_list=True, hidden="--excludeHosts --excludedHosts"),
    Option("-H --hosts", "only on these hosts", "A,B", convert=words_between_commas, is_list=True),
    Option("-Q --queue", "queue", "NAME", convert=utf8),
    Option("-a --array", "one task for each index", "SET[%N]", convert=array),
    Option("-o --stdout", "file for standard output", "PATH", hidden="--stdout_file --stdoutFile"),
    Option("-e --stderr", "file for standard error (-O as hQ had it)", "PATH", hidden="-O --stderr_file --stderrFile"),
    Option("-l --logfile", "file for both streams and a summary", "PATH"),
    Option("--stdin", "file for standard input (/dev/null)", "PATH"),
    Option("-S --shell", "shell for a command line (/bin/sh)", "SHELL"),
    Option("-C --chdir", "run in this directory", "DIR"),
    Option("--env", "set a variable of the job's environment; repeatable", "NAME=VALUE", convert=variable, is_list=True),
    Option("--export", "which of these variables the job gets: none, all (default) or a list", "WHICH"),
    Option("-m --memory", "limit: end the job above it", "SIZE", convert=size),
    Option("-t --time-limit", "limit: TERM, a grace time, KILL", "TIME", convert=seconds, hidden="--timeLimit"),
    Option("--grace", "time between TERM and KILL (10)", "TIME", convert=grace),
    Option("--estimated-time", "how long it will probably take", "TIME", convert=seconds, hidden="--estimatedTime"),
    Option("--estimated-memory", "how much it will probably use", "SIZE", convert=size, hidden="--estimatedMemory"),
    Option("-r --resource", "anything else countable; repeatable", "NAME=N", convert=resource, is_list=True),
    Option("--hold", "not before hq-client release"),
    Option("--begin", "not before: 18:00, +1h, 2026-03-01T08:00", "WHEN", convert=begin),
    Option("--after", "not before these jobs have ended well; cancelled if one does not", "ID,ID", convert=job_ids, is_list=True),
    Option("--after-any", "not before these jobs have ended, however", "ID,ID", convert=job_ids, is_list=True),
    Option("--rerunnable", "may start again when its host is lost (arrays may)", key="rerunnable"),
    Option("--no-rerunnable", "may not", key="rerunnable", value=False),
    Option("--retries", "start it again when it fails, N times at most (0)", "N", convert=whole_number(0, 1000)),
    Option("--retry-on", "only after these exit codes (128+N for signal N)", "CODES", convert=exit_codes),
    Option("--signal", "send a signal so long before the time limit: USR1@120", "SIG@TIME", convert=early_signal),
    Option("--nice", "0 to 19 (0)", "N", convert=whole_number(0, 19)),
    Option("--mode", "at a batch system: a job of its own there, through pilots, or by count and length (the site's choice)", "HOW",
           choices=("forward", "pilot", "auto")),  # fmt: skip
    Option("--output-limit", "of each stream (1G)", "SIZE", convert=size),
    Option("--output-limit-action", "what happens above it", "WHAT", choices=("trim", "stop", "warn")),
    Option("--script", "submit this script; its bytes are kept with the job", "FILE"),
)

#: Options that describe the act of submitting.
ACT_OPTIONS: tuple[Option, ...] = (
    Option("-f --jobs-file", "one job a line: property::value between tabs, or a JSON object", "FILE", hidden="--jobsFile"),
    Option("--dry-run", "check everything, submit nothing"),
    Option("-w --wait", "wait for the end, return the job's exit code"),
    Option("-q --quiet", "print ids only"),
    Option("--json", "print JSON"),
    Option("--allow-root", "run as root where that is not a container"),
    Option("-s --status", "show the status of your user-server"),
    Option("--etc", "the instance's etc directory (HQ_ETC)", "DIR"),
    Option("-v --verbose", "say what is done"),
)

OPTIONS: tuple[Option, ...] = (*JOB_OPTIONS, *ACT_OPTIONS, *COMMON)


def job_option(name: str) -> Option | None:
    """The option of a job that a property of a jobs file means: `slots`, `infoText`, `info-text`, `estimatedTime`."""
    wanted = {"--" + name, "--" + name.replace("_", "-")}
    for option in JOB_OPTIONS:
        if wanted.intersection(option.names) or wanted.intersection(option.hidden):
            return option
    return None


def job_properties() -> list[str]:
    """The names that a line of a jobs file may use."""
    names = ["command"]
    for option in JOB_OPTIONS:
        names += [name[2:] for name in (*option.names, *option.hidden) if name.startswith("--")]
    return names


def is_flag(option: Option) -> bool:
    """Whether the option takes no value."""
    return option.metavar is None


def read_value(option: Option, value: Any) -> Any:
    """The value of an option from a JSON value: text and numbers as on the command line, lists and objects joined. Raises UsageError or ValueError."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{option.label[0:]} expects {option.metavar or 'true or false'}")
    if isinstance(value, dict) and option.is_list:
        return [got for name, each in value.items() for got in _as_list(option.read(f"{name}={each}"))]
    if isinstance(value, list) and option.is_list:
        return [got for each in value for got in _as_list(option.read(str(each)))]
    if isinstance(value, (dict, list)):
        raise ValueError(f"{option.label} expects one value, {option.metavar}")
    return option.read(str(value))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
