"""An exec-server of a synthetic host: as ExecSite, over a batch system, with short intervals."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from hq.model.ids import AttemptKey
from hq.model.runs import NativeRun, StartOrder
from hq.model.states import RunKind
from hq.protocol.runs import RunHold, RunStart
from tests.support.execserver import HOST, ExecSite
from tests.support.slurm import SlurmCluster

QUICK: dict[str, Any] = {"poll_interval": 0.3, "poll_longest": 0.6, "look_interval": 0.1, "exit_grace": 1.0, "retry_delays": [0.5, 1.0], "command_timeout": 20.0}


#: Words of a job that goes on until the test touches `go` in its directory, so that it is there as long as it is needed.
WAITS = "while [ ! -e go ]; do sleep 0.1; done"


class BatchSite(ExecSite):
    """`backend` is slurm or torque, `settings` go over the quick ones."""

    def __init__(self, root: Path, backend: str, slots: int = 32, **settings: Any) -> None:
        super().__init__(root, slots)
        self._backend = backend
        self._settings = {**QUICK, **settings}
        self.tools = root / "tools"

    def line(self, **changes: Any) -> dict[str, Any]:
        """As ExecSite.line."""
        return super().line(home=str(self.home), backend=self._backend, batch=self._settings, **changes)

    def start_array(self, command: str, count: int) -> list[AttemptKey]:
        """Order all tasks of one array, signed as hq-submit does (arrays may run again), in one message."""
        signed = self.user.sign(self.spec(command, indices=f"0-{count - 1}", is_rerunnable=True))
        job = 1000
        orders = tuple(StartOrder(job, index, 1, (index,)) for index in range(count))
        self.upstream.send(RunStart(host=HOST, specs={job: signed}, orders=orders))
        return [order.key for order in orders]

    def kill_worker(self) -> None:
        """`kill -9` of the worker, and wait for the next one's roll."""
        before = len(self.upstream.hellos)
        os.kill(self.worker_pid(), signal.SIGKILL)
        self.upstream.until(lambda: len(self.upstream.hellos) > before, "next worker")
        self.linked()

    def waits(self, key: AttemptKey, words: str) -> str:
        """Wait until an attempt waits for a reason with these words; the reason."""
        def found() -> str:
            reasons = [report.reason for report in self.upstream.reports if report.key == key and report.kind is RunKind.WAITS]
            return next((reason for reason in reasons if words in reason), "")

        return str(self.upstream.until(found, f"{key} to wait for '{words}'", 60))

    def hold(self, *keys: AttemptKey, is_held: bool = True) -> None:
        """Order that attempts be held, or let go."""
        self.upstream.send(RunHold(host=HOST, runs=keys, is_held=is_held))

    def native(self, key: AttemptKey) -> NativeRun:
        """How an attempt stands at the batch system, as it was told last."""
        found = [report.native for report in self.upstream.reports if report.key == key and report.native is not None]
        return found[-1] if found else NativeRun()

    def tool(self, name: str, script: str) -> None:
        """Put a program before the batch system's own of that name. Needs `path` to be `tools`."""
        path = self.tools / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    def said(self, job: int, suffix: str = "out") -> bytes:
        """What a job wrote to its default output file."""
        (path,) = self.home.rglob(f"output/{job}/{job}.{suffix}")
        return path.read_bytes()

    def folders(self) -> list[Path]:
        """Directories of submissions that are still there."""
        return sorted(self.home.glob("*/batch/*/*"))


MakeSite = Callable[..., BatchSite]


@contextmanager
def slurm_sites(slurm: SlurmCluster, folder: Path) -> Iterator[MakeSite]:
    """Context: makes exec-servers over a Slurm, with settings, and with programs of the test's own before Slurm's: in a script `{name}` is
    Slurm's own program of that name, `{tools}` the folder of those before it."""
    own = {name: shutil.which(name) for name in ("sbatch", "squeue", "scancel", "sacct")}
    with ExitStack() as stack:
        stack.callback(slurm.run, "scancel", "--user=root", check=False)
        names = (f"site{number}" for number in count())

        def made(tools: dict[str, str] | None = None, **settings: Any) -> BatchSite:
            root = folder / next(names)
            site = BatchSite(root, "slurm", path=str(root / "tools"), environment={"SLURM_CONF": str(slurm.conf)}, **settings)
            stack.callback(site.close)
            for name, script in (tools or {}).items():
                site.tool(name, script.format(tools=site.tools, **own))
            return site.up()

        yield made
