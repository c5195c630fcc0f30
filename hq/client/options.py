"""Options of a command as one table: parsing, help and completion come from it.

Not argparse: options must end at the first word of the command, whatever stands behind it, words that are no UTF-8 must
come through, and an unknown option should name its nearest neighbour. A converter raises InputError or ValueError; the
option's name is put in front of what it says.
"""

from __future__ import annotations

from hq.errors import InputError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any


class Option:
    """One option. Without `metavar` it is a flag that sets `value`; with `is_list` each use adds to a list.

    `names[0]` is what messages call it; `key` is where its value goes. Names in `hidden` work and are not shown in the usage.
    """

    __slots__ = ("choices", "convert", "help", "hidden", "is_list", "key", "metavar", "names", "value")

    def __init__(
        self,
        names: str,
        help: str,
        metavar: str | None = None,
        *,
        convert: Callable[[str], Any] | None = None,
        is_list: bool = False,
        value: Any = True,
        key: str | None = None,
        hidden: str = "",
        choices: tuple[str, ...] = (),
    ) -> None:
        self.names = tuple(names.split())
        self.help = help
        self.metavar = metavar
        self.convert = convert
        self.is_list = is_list
        self.value = value
        self.hidden = tuple(hidden.split())
        self.choices = choices
        self.key = key or next(name for name in self.names if name.startswith("--"))[2:].replace("-", "_")

    @property
    def label(self) -> str:
        """How messages call it: `-m/--memory`."""
        return "/".join(self.names)

    def read(self, text: str) -> Any:
        """The value that `text` means. Raises UsageError that names the option."""
        if self.choices and text not in self.choices:
            raise UsageError(f"option {self.label}: '{text}' is none of {', '.join(self.choices)}")
        if self.convert is None:
            return text
        try:
            return self.convert(text)
        except InputError as error:
            raise UsageError(f"option {self.label}: {error.message}") from None
        except ValueError as error:
            raise UsageError(f"option {self.label}: {error}") from None

    def put(self, values: dict[str, Any], value: Any) -> None:
        """Record a value that was read."""
        if self.is_list:
            values.setdefault(self.key, []).extend(value if isinstance(value, list) else [value])
        else:
            values[self.key] = value


#: Every command has these.
COMMON = (
    Option("-h --help", "show this help"),
    Option("--version", "show the version"),
)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if something known is near to `word`, else nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""


def parse(options: Sequence[Option], argv: Sequence[str], program: str, *, is_ending_at_word: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Values by key, and the words that are no options. `--help` and `--version` end the reading.

    With `is_ending_at_word` the first word ends the options: all from there on is returned untouched. Raises UsageError.
    """
    named = {name: option for option in options for name in (*option.names, *option.hidden)}
    values: dict[str, Any] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word == "-" or not word.startswith("-"):
            words.append(word)
            if is_ending_at_word:
                words += rest
                break
            continue
        if word.startswith("--"):
            name, equals, given = word.partition("=")
            value: str | None = given if equals else None
            option = named.get(name)
        else:
            name, value = word[:2], word[2:] or None
            option = named.get(name)
            if option is not None and option.metavar is None and value is not None:
                # -qw is -q -w
                rest.insert(0, "-" + value)
                value = None
        if option is None:
            raise UsageError(f"unknown option '{name}'{nearest(name, named)} (see {program} --help)")
        if option.metavar is None:
            if value is not None:
                raise UsageError(f"option {option.label} takes no value, but was given '{value}'")
            if option.key in ("help", "version"):
                return {option.key: True}, []
            option.put(values, option.value)
            continue
        if value is None:
            if not rest:
                raise UsageError(f"option {option.label} needs a value: {name} {option.metavar}")
            value = rest.pop(0)
        option.put(values, option.read(value))
    return values, words


def help_text(usage: str, description: str, options: Sequence[Option], footer: str = "") -> str:
    """The text of `--help`."""
    from textwrap import wrap

    lines = [f"usage: {usage}", "", *(line for part in description.split("\n\n") for line in [*wrap(part, 100), ""]), "options:"]
    for option in options:
        left = "  " + ", ".join(option.names) + (f" {option.metavar}" if option.metavar else "")
        right = wrap(option.help + (f" ({', '.join(option.choices)})" if option.choices else ""), 66)
        if len(left) > 32:
            lines.append(left)
            left = ""
        for part in right:
            lines.append(f"{left:<34}{part}".rstrip())
            left = ""
    return "\n".join([*lines, *(["", footer] if footer else [])])


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """A converter for whole numbers within limits."""

    def convert(text: str) -> int:
        try:
            if not text.isascii() or "_" in text:
                raise ValueError
            number = int(text)
        except ValueError:
            raise ValueError(f"'{text}' is not a whole number") from None
        if number < low or (high is not None and number > high):
            raise ValueError(f"{number} is out of range: {low} to {high}" if high is not None else f"{number} is too small: at least {low}")
        return number

    return convert


def size(text: str) -> int:
    """A converter for sizes, to bytes."""
    from hq.model.quantities import parse_bytes

    return parse_bytes(text)


def seconds(text: str) -> float:
    """A converter for durations, to seconds."""
    from hq.model.quantities import parse_seconds

    return parse_seconds(text)


def signal_number(text: str) -> int:
    """The number of `TERM`, `SIGTERM` or `15`. Raises UsageError."""
    import signal as signals

    if text.isascii() and text.isdigit() and 1 <= int(text) <= 64:
        return int(text)
    name = "SIG" + text.upper().removeprefix("SIG")
    try:
        return int(signals.Signals[name])
    except KeyError:
        known = [each.name.removeprefix("SIG") for each in signals.Signals]
        raise UsageError(f"there is no signal '{text}'{nearest(text.upper(), known)}") from None


def utf8(text: str) -> str:
    """A converter for texts that are stored as text, so must be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        import os

        raise ValueError(f"{os.fsencode(text)!r} is not UTF-8") from None
    return text


def words_between_commas(text: str) -> list[str]:
    """A converter for `a,b,c`."""
    parts = [part.strip() for part in utf8(text).split(",")]
    if not all(parts):
        raise ValueError(f"'{text}' has an empty place between commas")
    return parts
