"""Secrets, private directories, locks."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from hq.errors import InputError, SecurityError, UnavailableError
from hq.kernel import files


def test_a_secret_comes_back_and_is_closed_to_others(tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    files.write_secret(path, "first")
    files.write_secret(path, "second\n")
    assert files.read_secret(path) == "second"
    assert os.stat(path).st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601])
def test_a_secret_open_to_others_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text("x")
    path.chmod(mode)
    with pytest.raises(SecurityError, match=f"chmod 600 {path}"):
        files.read_secret(str(path))


def test_links_fifos_and_directories_are_no_secrets(tmp_path: Path) -> None:
    files.write_secret(str(tmp_path / "key"), "x")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "dir").mkdir(mode=0o700)
    for name in ("link", "fifo", "dir"):
        with pytest.raises(SecurityError):
            files.read_secret(str(tmp_path / name))
    with pytest.raises(InputError, match="nothing"):
        files.read_secret(str(tmp_path / "nothing"))


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "key").symlink_to(tmp_path / "target")
    files.write_secret(str(tmp_path / "key"), "new")
    assert (tmp_path / "target").read_text() == "untouched"
    assert files.read_secret(str(tmp_path / "key")) == "new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_what_belongs_to_another_is_refused(tmp_path: Path) -> None:
    files.write_secret(str(tmp_path / "key"), "x")
    os.chown(tmp_path / "key", 12345, -1)
    with pytest.raises(SecurityError, match="12345"):
        files.read_secret(str(tmp_path / "key"))
    (tmp_path / "dir").mkdir(mode=0o700)
    os.chown(tmp_path / "dir", 12345, -1)
    with pytest.raises(SecurityError, match="12345"):
        files.make_private_dir(str(tmp_path / "dir"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_parent_that_another_put_into_a_shared_directory_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "hq-0").mkdir(mode=0o755)
    os.chown(shared / "hq-0", 12345, -1)
    with pytest.raises(SecurityError, match="12345"):
        files.make_private_dir(str(shared / "hq-0" / "instance"))
    (tmp_path / "mine").mkdir(mode=0o700)
    (shared / "hq-1").symlink_to(tmp_path / "mine")
    with pytest.raises(SecurityError):
        files.make_private_dir(str(shared / "hq-1" / "instance"))


def test_a_private_directory_is_made_with_its_parents_and_found_again(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    for _ in range(2):
        assert files.make_private_dir(path) == path
    assert all(os.stat(each).st_mode & 0o777 == 0o700 for each in (path, tmp_path / "a"))


def test_an_open_or_linked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SecurityError, match="chmod 700"):
        files.make_private_dir(str(tmp_path / "open"))
    for name in ("link", "file"):
        with pytest.raises(SecurityError):
            files.make_private_dir(str(tmp_path / name))


@pytest.mark.parametrize(("mode", "is_safe"), [(0o755, True), (0o700, True), (0o775, False), (0o757, False)])
def test_what_others_may_write_is_not_trusted(tmp_path: Path, mode: int, is_safe: bool) -> None:
    path = tmp_path / "etc"
    path.mkdir()
    path.chmod(mode)
    if is_safe:
        files.check_not_writable_by_others(str(path))
    else:
        with pytest.raises(SecurityError, match="chmod go-w"):
            files.check_not_writable_by_others(str(path))


def _hold(path: str, ready: object, go: object) -> None:
    with files.lock_file(path):
        ready.set()  # type: ignore[attr-defined]
        go.wait(30)  # type: ignore[attr-defined]


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    context = multiprocessing.get_context("spawn")
    ready, go = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(path, ready, go))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UnavailableError, match=f"process {holder.pid}"):
            files.lock_file(path)
    finally:
        holder.kill()
        holder.join()
    lock = files.lock_file(path)
    assert Path(path).read_text().strip() == str(os.getpid())
    with pytest.raises(UnavailableError):
        files.lock_file(path)
    lock.release()
    lock.release()
    files.lock_file(path).release()


def test_file_systems_are_told_apart() -> None:
    assert files.filesystem_type("/proc/self") == "proc"
    assert not files.is_network_filesystem("/proc/self")
    assert files.filesystem_type("/no/such/place") == files.filesystem_type("/")


def test_a_network_file_system_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "filesystem_type", lambda path: "nfs4" if path == "/home" else "ext4")
    assert files.is_network_filesystem("/home") and not files.is_network_filesystem("/srv")


def test_a_file_for_which_there_is_no_room_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    os.close(files.write_anew(str(path), b"old"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.write_anew(str(path), b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["kept"]
    descriptor = files.write_anew(str(path), b"new")
    os.write(descriptor, b"er")
    os.close(descriptor)
    assert path.read_bytes() == b"newer" and path.stat().st_mode & 0o777 == 0o600
