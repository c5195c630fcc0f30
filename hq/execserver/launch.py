"""From a signed spec and opened blobs to a Launch: argument list, environment, files. The blobs stay sealed on the disk."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from typing import NamedTuple

from hq.errors import SecurityError
from hq.execserver.backends.base import CANNOT_PREPARE, Launch, NotStarted
from hq.execserver.environment import parse_environment, plain_environment, run_environment, shared_environment
from hq.execserver.paths import PathPlan, RunPaths
from hq.kernel.files import make_private_dir
from hq.kernel.keys import Sealer, digest_of
from hq.model.job import JobSpec
from hq.model.runs import StartOrder

_KEPT_ENVIRONMENTS = 64
_KEPT_RECIPES = 64
_KEPT_FORMS = 64
#: A program by its path and plain words: nothing in it that a shell would expand, look up, redirect or assign.
_PLAIN_COMMAND = re.compile(rb"/[A-Za-z0-9_./+-]+(?: [A-Za-z0-9_./,:@%+-]+)*")
_SHELLS = frozenset({b"sh", b"dash", b"bash"})


class BlobStore:
    """Sealed blobs by digest in a private directory, so that a new worker need not ask for them again."""

    def __init__(self, directory: str) -> None:
        self._directory = make_private_dir(directory)

    def _path(self, digest: str) -> str:
        assert digest.isalnum()
        return os.path.join(self._directory, digest)

    def has(self, digest: str) -> bool:
        """Whether it is here."""
        return digest.isalnum() and os.path.exists(self._path(digest))

    def get(self, digest: str) -> bytes:
        """The sealed bytes. Raises OSError."""
        with open(self._path(digest), "rb") as file:
            return file.read()

    def put(self, digest: str, sealed: bytes) -> bool:
        """Keep it; False if the bytes are not what the digest names. Raises OSError (disk full)."""
        if not digest.isalnum() or digest_of(sealed) != digest:
            return False
        temporary = self._path(digest) + ".new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(sealed)
        os.replace(temporary, self._path(digest))
        return True

    def clear(self) -> None:
        """Remove all."""
        for name in os.listdir(self._directory):
            os.unlink(os.path.join(self._directory, name))


class _Form(NamedTuple):
    """What the launches of many jobs have in common, as of a loop that submits one command with other words each time."""

    base: dict[bytes, bytes]  # the environment that came with them
    environment: dict[bytes, bytes]
    paths: PathPlan


class _Recipe(NamedTuple):
    """What the launches of one job have in common."""

    spec: JobSpec
    argv: tuple[bytes, ...]  # of a script only its arguments
    directory: bytes  # where its output goes by default
    form: _Form


def _make_directory(path: bytes) -> None:
    """Make a directory of ours, and those above it if need be. It may be there. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except OSError:
        os.makedirs(path, mode=0o700, exist_ok=True)


class Launcher:
    """Makes launches. `home` is HQ_HOME on this host; scripts are written to `scripts` (0700)."""

    def __init__(self, host: str, home: str, blobs: BlobStore, scripts: str, sealer: Sealer) -> None:
        self.host = host
        self.home = home
        self.blobs = blobs
        self._scripts = make_private_dir(scripts)
        self._sealer = sealer
        self._environments: OrderedDict[str, dict[bytes, bytes]] = OrderedDict()
        self._plain = plain_environment()
        self._written: set[str] = set()
        self._recipes: OrderedDict[int, _Recipe] = OrderedDict()
        self._forms: OrderedDict[tuple[str | bytes, ...], _Form] = OrderedDict()
        self._made: set[bytes] = set()  # directories

    def paths(self, spec: JobSpec, order: StartOrder) -> RunPaths:
        """Where the streams of a run are."""
        return PathPlan(spec, self.host, self.home).of(order.key.task)

    def launch(self, spec: JobSpec, order: StartOrder, tag: str) -> Launch | NotStarted:
        """All that the backend needs. NotStarted with 125 if a blob cannot be opened or a directory of ours not be made."""
        try:
            recipe = self._recipe(spec, order.job)
            argv = self._script_argv(spec) if spec.script else recipe.argv
        except SecurityError as error:
            return NotStarted(str(error), CANNOT_PREPARE)
        except OSError as error:
            return NotStarted(f"its environment or script cannot be written on this host: {error.strerror}", CANNOT_PREPARE)
        paths = recipe.form.paths.of(order.key.task)
        where = recipe.directory if paths.is_default else b""
        if where and where not in self._made:
            try:
                _make_directory(where)
            except OSError as error:
                return NotStarted(f"the directory {os.fsdecode(where)} for the output cannot be made: {error.strerror}", CANNOT_PREPARE)
            self._made.add(where)
        return Launch(
            key=order.key, tag=tag, argv=argv, env=run_environment(recipe.form.environment, spec, order, tag), cwd=spec.cwd, umask=spec.umask,
            stdin=paths.stdin, stdout=paths.stdout, stderr=paths.stderr, directory=where, nice=spec.nice, memory=spec.memory,
            name=spec.name, slots=max(spec.slots, len(order.slots)), resources=spec.resources, mode=spec.mode, time_limit=spec.time_limit, grace=spec.grace,
            output_limit=spec.output_limit, output_action=spec.output_action,
        )  # fmt: skip

    def _recipe(self, spec: JobSpec, job: int) -> _Recipe:
        known = self._recipes.get(job)
        if known is None or known.spec is not spec:
            form = self._form(spec)
            known = self._recipes[job] = _Recipe(spec, self._argv(spec, form.base), form.paths.directory(job), form)
            if len(self._recipes) > _KEPT_RECIPES:
                self._made.discard(self._recipes.popitem(last=False)[1].directory)
        return known

    def _form(self, spec: JobSpec) -> _Form:
        # all that a form is made of, but host and home
        like = (spec.instance, spec.user, spec.env, spec.name, spec.cwd, spec.stdin, spec.stdout, spec.stderr, spec.logfile)
        known = self._forms.get(like)
        if known is None:
            base = self._environment(spec.env) if spec.env else self._plain
            known = self._forms[like] = _Form(base, shared_environment(base, spec, self.host), PathPlan(spec, self.host, self.home))
            if len(self._forms) > _KEPT_FORMS:
                self._forms.popitem(last=False)
        return known

    def _argv(self, spec: JobSpec, environment: dict[bytes, bytes]) -> tuple[bytes, ...]:
        if not spec.is_shell:
            return spec.argv
        # a shell would do no more with such a line than execute it, but a process of its own costs as much as the command
        if len(spec.argv) == 1 and _PLAIN_COMMAND.fullmatch(spec.argv[0]) and os.path.basename(spec.shell) in _SHELLS and b"BASH_ENV" not in environment:
            return tuple(spec.argv[0].split(b" "))
        return (spec.shell, b"-c", *spec.argv)

    def _script_argv(self, spec: JobSpec) -> tuple[bytes, ...]:
        """With #! it is run itself, else by the shell. On a file system that executes nothing its interpreter is called by us."""
        path = os.path.join(self._scripts, spec.script)
        if spec.script not in self._written or not os.path.exists(path):
            content = self._sealer.open(self.blobs.get(spec.script), spec.script)
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o700)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
            os.replace(path + ".new", path)
            self._written.add(spec.script)
        with open(path, "rb") as file:
            line = file.readline(4096)
        script = os.fsencode(path)
        if not line.startswith(b"#!"):
            return (spec.shell, script, *spec.argv)
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            return (*line[2:].strip().split(None, 1), script, *spec.argv)
        return (script, *spec.argv)

    def _environment(self, digest: str) -> dict[bytes, bytes]:
        known = self._environments.get(digest)
        if known is None:
            known = parse_environment(self._sealer.open(self.blobs.get(digest), digest))
            self._environments[digest] = known
            if len(self._environments) > _KEPT_ENVIRONMENTS:
                self._environments.popitem(last=False)
        return known

    def clear(self) -> None:
        """Remove scripts and blobs: nothing is running and nothing is ordered."""
        for name in os.listdir(self._scripts):
            os.unlink(os.path.join(self._scripts, name))
        self._written.clear()
        self.blobs.clear()
