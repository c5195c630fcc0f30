"""From options and words to the job request that the user-server is asked for, as a dict of `hq.protocol.jobs.JobRequest`."""

from __future__ import annotations

import os
import sys

from hq.client.options import nearest
from hq.client.wire import bytes_text, word_text
from hq.errors import InputError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACEHOLDERS = ("job", "task", "index", "name", "host", "user")

#: A script is kept in the database; larger things belong into files.
MAX_SCRIPT = 16 << 20

#: Above this many bytes a command is checked against the kernel's limits here; far below them it need not be.
_LONG_COMMAND = 100_000


class Here:
    """What a job inherits from where it is submitted: directory, umask, environment."""

    __slots__ = ("cwd", "env", "umask")

    def __init__(self, cwd: bytes, umask: int, env: dict[bytes, bytes]) -> None:
        self.cwd = cwd
        self.umask = umask
        self.env = env

    @classmethod
    def of_process(cls) -> Here:
        """As this process has them. Raises InputError if the working directory is gone."""
        umask = os.umask(0o077)
        os.umask(umask)
        try:
            cwd = os.getcwdb()
            # the name that the user's shell shows: with automounters the physical one may not exist on other hosts
            shown = os.environb.get(b"PWD", b"")
            if shown.startswith(b"/") and shown != cwd and os.path.samefile(shown, cwd):
                cwd = shown
        except FileNotFoundError:
            raise InputError("the working directory does not exist any more: change to another, or say --chdir DIR") from None
        except OSError:
            pass
        return cls(cwd, umask, dict(os.environb))


def build_request(values: dict[str, Any], words: list[str], here: Here) -> dict[str, Any]:
    """The request for one job. Raises UsageError or InputError; nothing has been sent then."""
    request: dict[str, Any] = {"umask": here.umask}
    cwd = os.path.normpath(os.path.join(here.cwd, os.fsencode(values["chdir"]))) if "chdir" in values else here.cwd
    request["cwd"] = bytes_text(cwd)
    request["env"] = environment(values, here)
    request.update(command(values, words))
    request["name"] = values.get("name") or default_name(values, words)
    for key in ("stdin", "stdout", "stderr", "logfile"):
        if key in values:
            request[key] = bytes_text(os.path.join(cwd, path_template(key, values[key])))
    for key in ("slots", "memory", "time_limit", "grace", "retries", "nice", "mode", "output_limit"):
        if key in values:
            request[key] = values[key]
    if "retry_on" in values:
        request["retry_on"] = values["retry_on"]
    if "signal" in values:
        request["warn_signal"], request["warn_before"] = values["signal"]
    if "output_limit_action" in values:
        request["output_action"] = values["output_limit_action"]
    if "rerunnable" in values:
        request["is_rerunnable"] = values["rerunnable"]
    if "resource" in values:
        request["resources"] = {name: count for each in values["resource"] for name, count in each.items()}
    wishes = wishes_of(values)
    if "array" in values:
        request["indices"], throttle = values["array"]
        if throttle is not None:
            wishes["throttle"] = throttle
    if wishes:
        request["wishes"] = wishes
    return request


def wishes_of(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a request that may be changed later."""
    wishes: dict[str, Any] = {}
    for key, name in (
        ("priority", "priority"), ("group", "group"), ("info_text", "info"), ("queue", "queue"), ("begin", "begin"),
        ("estimated_time", "estimated_time"), ("estimated_memory", "estimated_memory"),
    ):  # fmt: skip
        if key in values:
            wishes[name] = values[key]
    for key, name in (("hosts", "hosts"), ("exclude_hosts", "exclude"), ("after", "after"), ("after_any", "after_any")):
        if key in values:
            wishes[name] = list(dict.fromkeys(values[key]))
    if values.get("hold"):
        wishes["is_held"] = True
    return wishes


def command(values: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """The fields of a request that say what runs."""
    fields: dict[str, Any] = {}
    if "shell" in values:
        fields["shell"] = word_text(shell_path(values["shell"]))
    script = values.get("script")
    if script is None and words[:1] == ["-"]:
        script, words = "-", words[1:]
    if script is not None:
        fields["script"] = bytes_text(read_script(script))
        fields["argv"] = [word_text(word) for word in words]
        return fields
    if not words:
        raise UsageError("there is no command (see hq-submit --help)")
    if not words[0].strip():
        raise UsageError("the command is empty")
    if sum(map(len, words)) > _LONG_COMMAND:
        check_length(words)
    fields["argv"] = [word_text(word) for word in words]
    fields["is_shell"] = len(words) == 1 and not values.get("is_argv")
    return fields


def check_length(words: list[str]) -> None:
    """Refuse what no kernel would take as a command line. Raises InputError."""
    from hq.model.job import MAX_COMMAND, MAX_WORD

    sizes = [len(os.fsencode(word)) for word in words]
    if max(sizes) > MAX_WORD:
        raise InputError(f"a word of the command has {max(sizes):,} bytes, the kernel takes at most {MAX_WORD:,}: submit it with --script FILE")
    if sum(sizes) > MAX_COMMAND:
        raise InputError(f"the command has {sum(sizes):,} bytes, at most {MAX_COMMAND:,} are taken: submit it with --script FILE")


def read_script(path: str) -> bytes:
    """The bytes of a script; `-` is standard input. Raises InputError."""
    try:
        if path == "-":
            if sys.stdin is None:
                raise InputError("there is no standard input to read a script from")
            script = sys.stdin.buffer.read(MAX_SCRIPT + 1)
        else:
            with open(path, "rb") as file:
                script = file.read(MAX_SCRIPT + 1)
    except OSError as error:
        raise InputError(f"the script cannot be read: {error.strerror}", file=path) from None
    if not script.strip():
        raise InputError("the script is empty", file="standard input" if path == "-" else path)
    if len(script) > MAX_SCRIPT:
        raise InputError(f"the script is larger than {MAX_SCRIPT >> 20} MB: keep it in a file and submit a command that runs it", file=path)
    return script


def shell_path(shell: str) -> str:
    """The path of a shell that is named. Raises InputError if there is no such program here."""
    if shell.startswith("/"):
        return shell
    from shutil import which

    if "/" not in shell and shell and os.path.exists("/bin/" + shell):
        return "/bin/" + shell
    found = which(shell) if "/" not in shell and shell else None
    if found is None:
        raise InputError(f"there is no shell '{shell}' here: give its full path")
    return found


def default_name(values: dict[str, Any], words: list[str]) -> str:
    """A name for a job that was given none: the first word of the command, without its folder."""
    script = values.get("script")
    first = script if script not in (None, "-") else "script" if script == "-" or words[:1] == ["-"] else words[0].split()[0]
    return os.fsencode(os.path.basename(first.rstrip("/"))).decode(errors="backslashreplace")[:64]


def path_template(key: str, path: str) -> bytes:
    """A path in which only known placeholders stand. Raises UsageError."""
    if not path:
        raise UsageError(f"the path for {key} is empty")
    rest = path
    while "{" in rest:
        name, closed, rest = rest.partition("{")[2].partition("}")
        if closed and name.isidentifier() and name not in PLACEHOLDERS:
            raise UsageError(f"the path for {key}: there is no placeholder {{{name}}}{nearest(name, PLACEHOLDERS)} (there are {', '.join(PLACEHOLDERS)})")
    return os.fsencode(path)


def environment(values: dict[str, Any], here: Here) -> list[str]:
    """The job's environment, each pair base64. Raises UsageError."""
    which = values.get("export", "all")
    if which == "all":
        env = dict(here.env)
    elif which == "none":
        env = {}
    else:
        names = [os.fsencode(name.strip()) for name in which.split(",")]
        if not all(names) or any(b"=" in name for name in names):
            raise UsageError(f"option --export: '{which}' is neither none nor all nor a list such as PATH,LANG (set values with --env)")
        env = {name: here.env[name] for name in names if name in here.env}
    for pair in values.get("env", ()):
        name, _, value = os.fsencode(pair).partition(b"=")
        env[name] = value
    return [bytes_text(name + b"=" + value) for name, value in env.items()]
