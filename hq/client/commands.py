"""`hq-client`: find the verb, read its options, call its function. `verb:ARG` is `verb ARG`."""

from __future__ import annotations

import sys

from hq.client.call import Call
from hq.client.entry import run
from hq.client.options import help_text, nearest, parse
from hq.client.verbs import BY_NAME, VERBS, Verb
from hq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = "hq-client"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    return run(PROGRAM, dispatch, argv)


def dispatch(argv: list[str]) -> int:
    """Do what the arguments say. Raises HqError."""
    etc: list[str] = []
    while argv and argv[0].startswith("-"):
        word = argv[0]
        if word in ("-h", "--help"):
            print(overview())
            return 0
        if word == "--version":
            from hq import VERSION

            print(f"{PROGRAM} {VERSION}")
            return 0
        if word == "--etc" and len(argv) > 1:
            etc, argv = argv[:2], argv[2:]
        elif word.startswith("--etc="):
            etc, argv = [word], argv[1:]
        elif word in ("-v", "--verbose"):
            argv = argv[1:]
        else:
            raise UsageError(f"unknown option '{word}': options stand behind the verb (see {PROGRAM} help)")
    if not argv:
        print(overview(), file=sys.stderr)
        return 2
    name, colon, argument = argv[0].partition(":")
    verb = find_verb(name)
    values, words = parse(verb.options, [*etc, *([argument] if colon and argument else []), *argv[1:]], f"{PROGRAM} {verb.name}")
    if "help" in values:
        print(verb_help(verb))
        return 0
    if len(words) < verb.least:
        raise UsageError(f"usage: {PROGRAM} {verb.name} {verb.args}")
    if verb.most is not None and len(words) > verb.most:
        raise UsageError(f"'{words[verb.most]}' is one word too many; usage: {PROGRAM} {verb.name} {verb.args}".rstrip())
    return function_of(verb)(Call(verb, values), words)


def find_verb(name: str) -> Verb:
    """The verb of a name or an older name. Raises UsageError with the nearest one."""
    verb = BY_NAME.get(name)
    if verb is None:
        raise UsageError(f"unknown verb '{name}'{nearest(name, BY_NAME)} (see {PROGRAM} help)")
    return verb


def function_of(verb: Verb) -> Callable[[Call, list[str]], int]:
    """What the verb does, imported now."""
    from importlib import import_module

    module, _, function = verb.place.partition(":")
    found: Callable[[Call, list[str]], int] = getattr(import_module(f"hq.client.{module}"), function)
    return found


def overview() -> str:
    """All verbs, a line each."""
    lines = [f"usage: {PROGRAM} VERB [options] [words]", ""]
    for verb in VERBS:
        lines.append(f"  {verb.name + ' ' + verb.args:<26} {verb.summary}")
    lines += [
        "",
        "SELECTION: ids, ranges, last, all: 12 14-20,31_4. Tasks of arrays are 31_4. Without one, 'jobs' shows what is live.",
        "verb:ARG is verb ARG. --json and -q stand behind every listing. 'help VERB' or 'VERB --help' says more.",
    ]
    return "\n".join(lines)


def verb_help(verb: Verb) -> str:
    """The help of one verb."""
    description = verb.summary[0].upper() + verb.summary[1:] + "." + (f"\n\nOlder name: {', '.join(verb.aliases)}." if verb.aliases else "")
    return help_text(f"{PROGRAM} {verb.name} [options] {verb.args}".rstrip(), description, verb.options)


def show_help(call: Call, words: list[str]) -> int:
    """The verb `help`."""
    print(verb_help(find_verb(words[0])) if words else overview())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
