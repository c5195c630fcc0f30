"""The steps of a host check, made of the facts that `hq-exec-server --check` prints. What no fact proves is not called good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import hq
from hq.protocol.peers import CheckStep

#: Soft limits below these make trouble that is hard to find later; the check says so and is still passed.
FEW_FILES = 256
FEW_PROCESSES = 64


def check_line(upstreams: Sequence[str]) -> bytes:
    """What `hq-exec-server --check` reads from its stdin: the addresses to try."""
    return json.dumps({"upstreams": list(upstreams)}).encode() + b"\n"


def failed_login(reason: str) -> list[CheckStep]:
    """The steps if there is no way in: one."""
    return [CheckStep("login", False, reason)]


def steps_of(answer: bytes, problem: str = "", noise: str = "", is_local: bool = False) -> list[CheckStep]:
    """The steps in their order. `answer`: the facts, one JSON object; empty: there are none, and `problem` says why."""
    said = f"; the login shell prints: {noise[:200]}" if noise else ""
    login = CheckStep("login", True, "this machine" if is_local else "ssh logs in" + said)
    if not answer:
        return [login, CheckStep("python", False, problem)]
    try:
        facts = json.loads(answer)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        return [login, CheckStep("python", False, f"hq-exec-server --check answers nonsense: {answer[:200]!r}")]
    return [login, _python(facts), _version(facts), _way_back(facts), _limits(facts), _lingering(facts)]


def _python(facts: dict[str, Any]) -> CheckStep:
    version = facts.get("python")
    numbers = str(version).split(".")
    is_ok = len(numbers) >= 2 and numbers[0].isdigit() and numbers[1].isdigit() and (int(numbers[0]), int(numbers[1])) >= (3, 11)
    return CheckStep("python", is_ok, f"Python {version}" if is_ok else f"Python {version}: hq needs 3.11 or newer")


def _version(facts: dict[str, Any]) -> CheckStep:
    theirs, ours = facts.get("version"), hq.VERSION
    if theirs == ours:
        return CheckStep("version", True, f"hq {theirs}")
    # Adjacent versions speak to each other; the handshake decides, not this step.
    return CheckStep("version", theirs is not None, f"hq {theirs} there, {ours} here")


def _way_back(facts: dict[str, Any]) -> CheckStep:
    """`way_back` of the facts: address → null or true if it was reached, else the reason in words."""
    tried = facts.get("way_back")
    if not isinstance(tried, dict) or not tried:
        return CheckStep("way back", True, "not tried: no address was given, or the exec-server there does not try them")
    reached = [address for address, reason in tried.items() if reason in (None, True, "")]
    failed = [f"{address}: {reason}" for address, reason in tried.items() if address not in reached]
    if reached:
        return CheckStep("way back", True, f"reaches {reached[0]}" + (f"; does not reach {'; '.join(failed)}" if failed else ""))
    return CheckStep("way back", False, f"cannot connect to {'; '.join(failed)}")


def _limits(facts: dict[str, Any]) -> CheckStep:
    limits = facts.get("ulimits")
    if not isinstance(limits, dict):
        return CheckStep("limits", True, "not told")
    soft = {name: value[0] if isinstance(value, list) and value else value for name, value in limits.items()}
    warnings = [
        f"{word} is only {soft[name]}"
        for names, least, word in ((("nofile", "RLIMIT_NOFILE"), FEW_FILES, "open files"), (("nproc", "RLIMIT_NPROC"), FEW_PROCESSES, "processes"))
        for name in names
        if isinstance(soft.get(name), int) and 0 <= soft[name] < least
    ]
    told = ", ".join(f"{name} {'unlimited' if value in (-1, None) else value}" for name, value in soft.items())
    return CheckStep("limits", not warnings, "; ".join([*warnings, told]))


def _lingering(facts: dict[str, Any]) -> CheckStep:
    lingering = facts.get("lingering")
    if lingering is True:
        return CheckStep("lingering", True, "on: what runs here outlives the login")
    if lingering is False:
        return CheckStep(
            "lingering", True, "off: if this host kills processes at logout (KillUserProcesses), run there: loginctl enable-linger"
        )
    return CheckStep("lingering", True, str(lingering) if lingering else "no systemd-logind here that would end processes at logout")
