"""Completion scripts, run by the shells that they are for: a word is begun, TAB is pressed, and the line is carried out."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hq.client import completion

#: What is typed, and the words that the command gets.
CASES = [
    ("hq-client canc", "cancel"),
    ("hq-client compl", "completion"),
    ("hq-client jobs --sta", "jobs --state"),
    ("hq-client jobs --state finished --sin", "jobs --state finished --since"),
    ("hq-client lajob --js", "lajob --json"),
    ("hq-submit --array 1-3 --rerun", "--array 1-3 --rerunnable"),
    ("hq-submit --array 1-3 --stdin quart", "--array 1-3 --stdin quarter.txt"),
]
START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='READ''Y> '; bind 'set enable-bracketed-paste off'; . ./completion.bash\n"),
    "zsh": (["zsh", "-f", "-i"], "PS1='READ''Y> '; unset zle_bracketed_paste; autoload -U compinit; compinit -D -u; . ./completion.zsh\n"),
}


def needs(shell: str) -> pytest.MarkDecorator:
    """Skip where the shell is not installed; `make test` as root installs it."""
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the scripts, commands that tell their words, and something to complete."""
    for name in ("hq-client", "hq-submit"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text('#!/bin/sh\necho "GOT<$*>"\n')
        command.chmod(0o755)
    for shell, script in (("bash", completion.bash), ("zsh", completion.zsh), ("fish", completion.fish)):
        (tmp_path / f"completion.{shell}").write_text(script())
    (tmp_path / "quarter.txt").touch()
    return tmp_path


@pytest.fixture
def typist(place: Path) -> Iterator[Callable[[str], Callable[[str, str], str]]]:
    """Starts a shell on a terminal; what it gives types a text and reads on until some words have come."""
    ends: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(shell: str) -> Callable[[str, str], str]:
        master, slave = pty.openpty()
        environment = {"PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place), "TERM": "dumb", "LANG": "C.UTF-8"}
        process = subprocess.Popen(START[shell][0], stdin=slave, stdout=slave, stderr=slave, cwd=place, env=environment, start_new_session=True)
        os.close(slave)
        ends.append((process, master))

        def type_and_read(text: str, until: str) -> str:
            os.write(master, text.encode())
            seen = b""
            while until.encode() not in seen:
                assert select.select([master], [], [], 60)[0], f"{shell} shows no {until!r}: {seen!r}"
                seen += os.read(master, 4096)
            return seen.decode()

        type_and_read(START[shell][1], "READY> ")
        return type_and_read

    yield start
    for process, master in ends:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize("shell", [pytest.param("bash", marks=needs("bash")), pytest.param("zsh", marks=needs("zsh"))])
def test_tab_completes_verbs_options_and_files(typist: Callable[[str], Callable[[str, str], str]], shell: str) -> None:
    terminal = typist(shell)
    for line, words in CASES:
        said = terminal(f"{line}\t\n", ">\r\n")
        assert f"GOT<{words}>" in said, (line, said)


@needs("fish")
def test_fish_completes_verbs_options_and_files(place: Path) -> None:
    for line, words in CASES:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source ./completion.fish; complete -C '{line}'"], cwd=place, capture_output=True, text=True, check=False,
            env={"PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place), "LANG": "C.UTF-8"},
        )  # fmt: skip
        assert [each.split("\t")[0] for each in done.stdout.splitlines()] == [words.split()[-1]], (line, done)
