"""A copy of hq that every user of this machine can run, wherever the checkout lies (a home of mode 0700, say)."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.lease import Lease, locked, stale_leases, take_lease
from tests.support.users import user_argv

REPOSITORY = Path(__file__).resolve().parents[2]
#: Needed to test, not to run.
DEVELOPMENT = (
    "mypy", "mypyc", "ruff", "hypothesis", "_hypothesis*", "pip", "setuptools", "pkg_resources", "_pytest", "pytest*", "xdist", "librt",
    "importlinter", "grimp", "_distutils_hack", "distutils-precedence.pth", "__editable__*", "hq", "hq-*", "hq.*",
    "types_*", "*-stubs", "testcontainers", "docker", "coverage", "black", "ast_serialize*", "execnet",
)  # fmt: skip
_IMPORTS = "import hq.errors, zmq, msgspec, yaml, sqlalchemy, paramiko, psutil, nacl, pymysql, tabulate, alembic, rich"


@functools.cache
def readable_install() -> Path:
    """The directory of the commands (hq-submit, …), of an installation that any user can read and execute.

    The checkout's own if an unprivileged user gets at it; else a copy below /var/tmp, removed when this process ends. Raises
    AssertionError if there is no Python that others can run.
    """
    for own in _own():
        if _is_usable(Path(sys.executable), own):
            return own
    return _copy()


def readable_python() -> Path:
    """The interpreter of `readable_install`, which can import hq (from any directory) and all that it needs."""
    bin_dir = readable_install()
    return Path(sys.executable) if bin_dir in _own() else bin_dir.parent / "venv" / "bin" / "python"


def _own() -> tuple[Path, ...]:
    return (Path(sys.executable).parent, REPOSITORY / "bin")


def _nobody(argv: list[str]) -> subprocess.CompletedProcess[str]:
    words = argv if os.geteuid() != 0 else user_argv("nobody", argv)
    return subprocess.run(words, cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120, check=False)


def _is_usable(python: Path, bin_dir: Path) -> bool:
    command = bin_dir / "hq-submit"
    if not command.exists():
        return False
    try:
        return _nobody([str(python), "-c", _IMPORTS]).returncode == 0 and _nobody([str(command), "--version"]).returncode == 0
    except OSError:
        return False


def _base_python() -> Path:
    """An interpreter of our own minor version (its C extensions are ours) that any user can run."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable).resolve(), Path("/usr/bin") / name, Path("/usr/local/bin") / name):
        if path.exists():
            try:
                done = _nobody([str(path), "-c", "import sys; print(sys.version_info[:2])"])
            except OSError:
                continue
            if done.returncode == 0 and done.stdout.strip() == str(sys.version_info[:2]):
                return path
    raise AssertionError(f"other users cannot run {Path(sys.executable).resolve()}, and there is no /usr/bin/{name}: apt-get install {name}")


def _copy() -> Path:
    with locked("install"):
        for stale in stale_leases("install"):
            _undo(stale)
        lease = take_lease("install")
        root = Path("/var/tmp") / f"hq-{lease.name}"
        lease.record(str(root))
        atexit.register(_undo_ours, lease, os.getpid())
    root.mkdir(mode=0o755)
    subprocess.run([str(_base_python()), "-m", "venv", "--without-pip", str(root / "venv")], check=True, capture_output=True)
    python = root / "venv" / "bin" / "python"
    target = next((root / "venv" / "lib").glob("python*/site-packages"))
    import msgspec

    source = Path(msgspec.__file__).parents[1]
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=_ignored(source))
    shutil.copytree(REPOSITORY / "hq", root / "hq", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "hq-copy.pth").write_text(f"{root}\n")
    _copy_commands(root, python)
    subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
    # Compiled by root once: the users cannot write there, and would compile at every start.
    subprocess.run([str(python), "-m", "compileall", "-q", "-j2", str(root / "hq"), str(target)], check=False, capture_output=True)
    subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
    done = _nobody([str(python), "-c", _IMPORTS])
    assert done.returncode == 0, f"the copy in {root} does not work: {done.stderr}"
    return root / "bin"


def _ignored(source: Path) -> object:
    patterns = shutil.ignore_patterns(*DEVELOPMENT)
    caches = shutil.ignore_patterns("__pycache__")

    def choose(directory: str, names: list[str]) -> set[str]:
        # What is for development is left out at the top only: deeper down the names may mean anything.
        return (patterns(directory, names) if Path(directory) == source else set()) | caches(directory, names)

    return choose


def _copy_commands(root: Path, python: Path) -> None:
    """bin/ with our interpreter in the first line of each command."""
    (root / "bin").mkdir()
    for command in sorted((REPOSITORY / "bin").iterdir()):
        if not command.is_file():
            continue
        first, _, rest = command.read_text().partition("\n")
        target = root / "bin" / command.name
        options = " -" + first.split(" -", 1)[1] if "python" in first and " -" in first and "env" not in first else ""
        target.write_text(f"#!{python}{options}\n{rest}" if "python" in first else f"{first}\n{rest}")
        target.chmod(0o755)


def _undo(lease: Lease) -> None:
    for line in lease.lines():
        shutil.rmtree(line, ignore_errors=True)
    lease.end()


def _undo_ours(lease: Lease, pid: int) -> None:
    # A forked child inherits the exit handlers, but not the copy.
    if os.getpid() == pid:
        _undo(lease)
