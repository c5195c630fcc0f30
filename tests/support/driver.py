"""Calls of transports by a process of a user, as his user-server would make them; `transport_driver.py` is what runs there."""

from __future__ import annotations

import json
import pwd
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hq.model.host import HostSpec
from tests.support.hosts import Hosts
from tests.support.install import readable_python
from tests.support.users import run_as

SUPPORT = Path(__file__).parent


class Driver:
    """Calls transports as a user."""

    def __init__(self, hosts: Hosts, user: str = "alice") -> None:
        self.hosts = hosts
        self.user = user
        self.home = Path(pwd.getpwnam(user).pw_dir)
        #: Added to the environment of the process that calls.
        self.env: Mapping[str, str] = {}
        self.run_dir = f"/var/tmp/hq-{pwd.getpwnam(user).pw_uid}/t{hosts.tag}"

    def __call__(self, *calls: tuple[str, HostSpec], words: tuple[str, ...] = (), settings: dict[str, Any] | None = None, **more: Any) -> Any:
        """Make the calls in turn on one set of transports; everything that came of it."""
        stand_in = [str(self.hosts.directory / "stand_in"), *words]
        chosen = {"run_dir": self.run_dir, "exec_server": stand_in, "local_exec_server": stand_in, "connect_timeout": 30.0, **(settings or {})}
        order = {"calls": [[method, asdict(host)] for method, host in calls], "settings": chosen, **more}
        source = (SUPPORT / "transport_driver.py").read_text()
        done = run_as(self.user, [str(readable_python()), "-c", source], stdin=json.dumps(order).encode(), env=self.env, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def one(self, method: str, host: HostSpec, **more: Any) -> tuple[Any, str, str, float]:
        """One call: value, name of the error's class, its text, seconds."""
        outcome = self((method, host), **more)["outcomes"][0]
        kind, text = outcome["error"] or ("", "")
        return outcome["value"], kind, text, outcome["seconds"]
