"""The rules of the house: who imports whom, no work at import, small files, documented doors."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "hq").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES]
#: Alembic runs these itself.
NOT_IMPORTED = ("hq.db.migrations",)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_import_rules_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="setup.cfg", no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 400


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_only_declare(path: Path) -> None:
    """No statement at the top of a module that does something by itself. A script's last line, `if __name__ == ...`, is none."""
    if "migrations" in path.parts:
        return
    for node in ast.parse(path.read_text()).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        does = isinstance(node, ast.Expr | ast.For | ast.While | ast.With) and not is_text
        assert not does, f"{path}:{node.lineno} does something when it is imported"


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """The public functions and classes of a module, and the public methods of the latter."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (each for each in node.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if not tree.body and path.name == "__init__.py":
        return
    assert ast.get_docstring(tree), f"{path} says nothing about what it is for"
    if "migrations" in path.parts:
        return
    missing = [f"{path}:{node.lineno} {node.name}" for node in public(tree) if not ast.get_docstring(node)]
    assert not missing, "\n".join(missing)


_IMPORT_ALL = """
import os, sys, threading
opened = []
def hook(event, args):
    if event in ("socket.__new__", "subprocess.Popen", "os.fork", "os.mkdir", "os.remove", "os.rename", "os.chdir"):
        opened.append((event, args))
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        opened.append((event, args))
for each in ("zmq", "msgspec", "sqlalchemy", "yaml", "paramiko", "psutil", "nacl.signing", "nacl.secret", "alembic.command", "pymysql", "rich", "tabulate"):
    __import__(each)
sys.dont_write_bytecode = True
sys.addaudithook(hook)
before = dict(os.environ)
for name in sys.argv[1:]:
    opened.clear()
    __import__(name)
    assert not opened, (name, opened)
    assert threading.active_count() == 1, name
    assert dict(os.environ) == before, name
"""


def test_nothing_is_done_at_import() -> None:
    modules = [name for name in MODULES if not name.startswith(NOT_IMPORTED)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL, *modules], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_way_of_a_submission_uses_the_standard_library_only() -> None:
    code = "import sys, hq.client.submit; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    slow = {"zmq", "msgspec", "sqlalchemy", "yaml", "paramiko", "psutil", "nacl", "rich", "tabulate", "asyncio", "dataclasses", "inspect", "typing"}
    assert not slow & set(done.stdout.split())


@pytest.mark.parametrize("path", sorted((ROOT / "bin").iterdir()), ids=name_of)
def test_a_command_is_three_lines_and_names_a_function(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("#!") and os.access(path, os.X_OK)
    source = ROOT / (lines[1].split()[1].replace(".", "/") + ".py")
    assert lines[1].endswith(" import main") and "def main(" in source.read_text()


def test_every_command_is_installed() -> None:
    listed = [line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines() if line.strip().startswith("bin/")]
    assert sorted(listed) == [name_of(path) for path in sorted((ROOT / "bin").iterdir())]


def calls_sleep(path: Path) -> bool:
    """Whether the test's own code sleeps; programs that it writes as text may."""
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep" and ast.unparse(node.func.value) == "time"
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_tests_wait_for_conditions_and_never_sleep() -> None:
    sleeping = [name_of(path) for path in TESTS if path.name.startswith("test_") and calls_sleep(path)]
    assert not sleeping, f"{sleeping}: use tests.support.wait.until"
