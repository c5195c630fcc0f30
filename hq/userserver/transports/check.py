"""The steps of a host check, made of the facts that `hq-exec-server --check` prints. What no fact proves is not called good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hq import VERSION
from hq.protocol.peers import CheckStep

#: Soft limits below these make trouble that is hard to find later: they fail the step.
FEW_FILES = 256
FEW_PROCESSES = 64


def check_line(upstreams: Sequence[str]) -> bytes:
    """What `hq-exec-server --check` reads from its stdin: the addresses to try."""
    return json.dumps({"upstreams": list(upstreams)}).encode() + b"\n"


def failed_login(reason: str) -> list[CheckStep]:
    """The steps if there is no way in: one."""
    return [CheckStep("login", False, reason)]


def steps_of(answer: bytes, problem: str = "", noise: str = "", is_local: bool = False, unforwarded: str = "") -> list[CheckStep]:
    """The steps in their order. `answer`: the facts, one JSON object; empty: there are none, and `problem` says why. `unforwarded`: why
    there is no reverse forward."""
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
    return [login, _python(facts), _version(facts), _way_back(facts, unforwarded), _limits(facts), _lingering(facts)]


def _python(facts: dict[str, Any]) -> CheckStep:
    version = facts.get("python")
    numbers = str(version).split(".")
    is_ok = len(numbers) >= 2 and numbers[0].isdigit() and numbers[1].isdigit() and (int(numbers[0]), int(numbers[1])) >= (3, 11)
    return CheckStep("python", is_ok, f"Python {version}" if is_ok else f"Python {version}: hq needs 3.11 or newer")


def _version(facts: dict[str, Any]) -> CheckStep:
    theirs, ours = facts.get("version"), VERSION
    if theirs == ours:
        return CheckStep("version", True, f"hq {theirs}")
    # Adjacent versions speak to each other; the handshake decides, not this step.
    return CheckStep("version", theirs is not None, f"hq {theirs} there, {ours} here")


def _way_back(facts: dict[str, Any], unforwarded: str) -> CheckStep:
    """`way_back` of the facts: address → null if it was reached, else the reason in words."""
    tried = facts.get("way_back")
    if not isinstance(tried, dict) or not tried:
        return CheckStep("way back", True, "not tried: no address was given")
    reached = [address for address, reason in tried.items() if not reason]
    failed = "; ".join(f"{address}: {reason}" for address, reason in tried.items() if reason)
    if not reached:
        return CheckStep("way back", False, f"cannot connect to {failed}" + (f"; no reverse forward: {unforwarded}" if unforwarded else ""))
    return CheckStep("way back", True, f"reaches {reached[0]}" + (f"; does not reach {failed}" if failed else ""))


def _limits(facts: dict[str, Any]) -> CheckStep:
    """`ulimits` of the facts: soft limits by the names of limits.conf(5), null for unlimited."""
    limits = facts.get("ulimits")
    if not isinstance(limits, dict):
        return CheckStep("limits", True, "not told")
    low = [
        f"only {limits[name]} {word}"
        for name, word, least in (("nofile", "open files", FEW_FILES), ("nproc", "processes", FEW_PROCESSES))
        if isinstance(limits.get(name), int) and limits[name] < least
    ]
    told = ", ".join(f"{name} {'unlimited' if value is None else value}" for name, value in limits.items())
    return CheckStep("limits", not low, "; ".join([*low, told]))


def _lingering(facts: dict[str, Any]) -> CheckStep:
    lingering = facts.get("lingering")
    if lingering is True:
        return CheckStep("lingering", True, "on: what runs here outlives the login")
    if lingering is False:
        return CheckStep(
            "lingering", True, "off: if this host kills processes at logout (KillUserProcesses), run there: loginctl enable-linger"
        )
    return CheckStep("lingering", True, str(lingering) if lingering else "no systemd-logind here that would end processes at logout")
