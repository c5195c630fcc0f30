"""`hq-client completion SHELL`: a completion script from the tables of verbs and options."""

from __future__ import annotations

from hq.client.options import Option
from hq.client.submit_options import OPTIONS
from hq.client.verbs import VERBS
from hq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hq.client.call import Call


def completion(call: Call, words: list[str]) -> int:
    """Print the script."""
    scripts = {"bash": bash, "zsh": zsh, "fish": fish}
    if words[0] not in scripts:
        raise UsageError(f"there is completion for bash, zsh and fish, not for '{words[0]}'")
    print(scripts[words[0]](), end="")
    return 0


def _names(options: Iterable[Option]) -> str:
    return " ".join(name for option in options for name in option.names)


def _cases() -> str:
    return "\n".join(f"    {'|'.join((verb.name, *verb.aliases))}) options='{_names(verb.options)}' ;;" for verb in VERBS)


def bash() -> str:
    """For bash: `. <(hq-client completion bash)`."""
    verbs = " ".join(verb.name for verb in VERBS)
    return f"""# completion of hq-client and hq-submit for bash: . <(hq-client completion bash)
_hq_client() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" options=''
  if [ "$COMP_CWORD" -eq 1 ]; then options='{verbs}'
  else case "${{COMP_WORDS[1]}}" in
{_cases()}
  esac; fi
  COMPREPLY=($(compgen -W "$options" -- "$current"))
}}
_hq_submit() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}"
  case "$current" in
    -*) COMPREPLY=($(compgen -W '{_names(OPTIONS)}' -- "$current")) ;;
    *) COMPREPLY=($(compgen -c -f -- "$current")) ;;
  esac
}}
complete -F _hq_client hq-client
complete -o filenames -F _hq_submit hq-submit
"""


def zsh() -> str:
    """For zsh: `. <(hq-client completion zsh)`."""
    verbs = "\n".join(f"    {_quoted(verb.name + ':' + verb.summary.replace(':', ' '))}" for verb in VERBS)
    return f"""#compdef hq-client hq-submit
# completion of hq-client and hq-submit for zsh: . <(hq-client completion zsh)
_hq_client() {{
  local options=''
  local -a verbs=(
{verbs}
  )
  if (( CURRENT == 2 )); then _describe verb verbs; return; fi
  case "${{words[2]}}" in
{_cases()}
  esac
  compadd -- ${{(s: :)options}}
}}
_hq_submit() {{
  if [[ "$PREFIX" == -* ]]; then compadd -- {_names(OPTIONS)}; else _command_names -e; _files; fi
}}
compdef _hq_client hq-client
compdef _hq_submit hq-submit
"""


def fish() -> str:
    """For fish: `hq-client completion fish | source`."""
    lines = ["# completion of hq-client and hq-submit for fish: hq-client completion fish | source"]
    for verb in VERBS:
        lines.append(f"complete -c hq-client -f -n __fish_use_subcommand -a {verb.name} -d {_quoted(verb.summary)}")
        names = " ".join((verb.name, *verb.aliases))
        lines += [_fish_option("hq-client", option, f"-n '__fish_seen_subcommand_from {names}' ") for option in verb.options]
    lines += [_fish_option("hq-submit", option, "") for option in OPTIONS]
    return "\n".join(lines) + "\n"


def _fish_option(program: str, option: Option, condition: str) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    choices = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r" if option.metavar else ""
    return f"complete -c {program} {condition}{names}{choices} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "") + "'"
