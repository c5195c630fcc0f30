"""How every command begins and ends: arguments in, exit code out, errors as lines on stderr, never a traceback for people's mistakes."""

from __future__ import annotations

import os
import sys

from hq.errors import HqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def say(program: str, text: str) -> None:
    """A line (or several) on stderr, with the program's name in front."""
    for line in text.splitlines() or [""]:
        print(f"{program}: {line}", file=sys.stderr)


def run(program: str, function: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        code = function(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except HqError as error:
        say(program, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader went away (`| head`): that is no error of ours, and Python must not complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
