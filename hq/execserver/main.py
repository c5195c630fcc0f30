"""hq-exec-server: the start dialogue, the supervisor and the worker, each a process of its own.

`--bootstrap` reads one JSON line on stdin, starts (or finds) the exec-server, answers one JSON line on stdout and ends.
`--check` prints facts. `--supervise` and `--work` are what it starts itself with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from hq import VERSION
from hq.errors import HqError, RefusedError, UnavailableError
from hq.execserver.program import own_program, save_program

START_WITHIN = 40.0  # seconds until the worker must be up
MAX_LINE = 1 << 20


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="hq-exec-server", description="Runs the jobs of one user on one host. Started by the user's hq-user-server."
    )
    parser.add_argument("--version", action="version", version=f"hq-exec-server {VERSION}")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bootstrap", action="store_true", help="read a start line (JSON) on stdin, start, answer on stdout")
    what.add_argument("--check", action="store_true", help="print facts about this host as JSON")
    what.add_argument("--supervise", metavar="DIR", help=argparse.SUPPRESS)
    what.add_argument("--work", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.check:
        return print_check()
    if options.bootstrap:
        return answer_bootstrap()
    if options.supervise is not None:
        return supervise(options.supervise, options.ready_fd)
    return work(options.work, options.ready_fd)


def print_check() -> int:
    """Print the facts. stdin may hold `{"upstreams": [...]}`: addresses to try."""
    from hq.execserver.bootstrap import with_ssh_route
    from hq.execserver.check import check_facts

    upstreams: list[str] = []
    if not sys.stdin.isatty():
        line = sys.stdin.readline(MAX_LINE)
        if line.strip():
            try:
                told = json.loads(line)
                upstreams = [str(each) for each in told["upstreams"]]
            except (ValueError, TypeError, KeyError):
                print("hq-exec-server --check: stdin is not a JSON line with upstreams", file=sys.stderr)
                return 2
    print(json.dumps(check_facts(list(with_ssh_route(tuple(upstreams), os.environ.get("SSH_CONNECTION"))))), flush=True)
    return 0


def answer_bootstrap() -> int:
    """The start dialogue. Whatever goes wrong is the answer's reason."""
    try:
        answer = bootstrap(sys.stdin.buffer.readline(MAX_LINE), os.environ.get("SSH_CONNECTION"))
    except HqError as error:
        answer = {"ok": False, "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - the other end waits for one line, whatever happens here
        answer = {"ok": False, "reason": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    return 0 if answer["ok"] else 1


def bootstrap(line: bytes, ssh_connection: str | None) -> dict[str, Any]:
    """Start the exec-server that the line describes, or hand the line to the one that runs. Raises HqError."""
    import msgspec

    from hq.execserver.bootstrap import parse_bootstrap, save_bootstrap, with_ssh_route
    from hq.execserver.check import machine_facts
    from hq.execserver.rootpolicy import is_container, root_refusal
    from hq.kernel.files import lock_file, make_private_dir
    from hq.kernel.places import exec_run_dir

    told = parse_bootstrap(line)
    told = msgspec.structs.replace(told, upstreams=with_ssh_route(told.upstreams, ssh_connection))
    refusal = root_refusal(os.geteuid(), told.allow_root, is_container())
    if refusal is not None:
        raise RefusedError(refusal)
    run_dir = make_private_dir(exec_run_dir(told.instance, told.host))
    make_private_dir(os.path.join(run_dir, "log"))
    lock_path = os.path.join(run_dir, "lock")
    for _ in range(3):
        try:
            lock_file(lock_path).release()
        except UnavailableError:
            save_bootstrap(run_dir, told)
            save_program(run_dir, own_program(VERSION))
            pid = _holder(lock_path)
            try:
                os.kill(pid, signal.SIGHUP)
            except (ProcessLookupError, OverflowError):
                time.sleep(0.05)  # it is just ending
                continue
            return {"ok": True, "pid": pid, "adopted": True, "machine": machine_facts()}
        save_bootstrap(run_dir, told)
        save_program(run_dir, own_program(VERSION))
        return {"ok": True, "pid": _start_supervisor(run_dir), "machine": machine_facts()}
    raise UnavailableError(f"{lock_path} is locked by a process that does not answer")


def _holder(lock_path: str) -> int:
    """The pid in the lock file. Its writer may be about to write it."""
    for _ in range(100):
        with open(lock_path, encoding="ascii", errors="replace") as file:
            text = file.read().strip()
        if text.isascii() and text.isdigit() and int(text) > 1:
            return int(text)
        time.sleep(0.02)
    raise UnavailableError(f"{lock_path} is locked, and does not say by whom")


def _start_supervisor(run_dir: str) -> int:
    """Start it detached, and wait until its worker is up. Raises UnavailableError with the worker's reason."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(os.path.join(run_dir, "log", "stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    argv = own_program(VERSION).argv("--supervise", run_dir, "--ready-fd", str(writer))
    pid = os.posix_spawn(
        argv[0], argv, _daemon_environment(), setsid=True, setsigmask=(), setsigdef=[signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE],
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, errors, 1), (os.POSIX_SPAWN_DUP2, errors, 2)],
    )  # fmt: skip
    for fd in (writer, null, errors):
        os.close(fd)
    heard = b""
    deadline = time.monotonic() + START_WITHIN
    while not heard.endswith(b"\n"):
        if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise UnavailableError(f"hq-exec-server did not come up within {START_WITHIN:g} s; see {run_dir}/log")
        piece = os.read(reader, 4096)
        if not piece:
            break
        heard += piece
    os.close(reader)
    text = heard.decode("utf-8", "replace").strip()
    if text != "up":
        raise UnavailableError(text or f"hq-exec-server ended at its start; see {run_dir}/log/stderr")
    return pid


def _daemon_environment() -> dict[str, str]:
    """Ours, without what a job or a login left in it: a daemon with a run's tag would be taken for one of its processes."""
    from hq.model.runs import RUN_VARIABLES

    kept = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES and not name.startswith("SSH_")}
    return own_program(VERSION).environment(kept)


def supervise(run_dir: str, ready_fd: int | None) -> int:
    """The supervisor's process: it has the lock of the run directory for all its life."""
    from hq.execserver.supervisor import Supervisor, become_subreaper
    from hq.kernel.files import lock_file

    os.chdir("/")
    try:
        lock = lock_file(os.path.join(run_dir, "lock"))
        become_subreaper()
    except (HqError, OSError) as error:
        _tell(ready_fd, f"the supervisor cannot start: {error}")
        return 1
    if ready_fd is not None:
        os.set_inheritable(ready_fd, True)
    with lock:
        return Supervisor(run_dir, own_program(VERSION), dict(os.environ)).run(ready_fd)


def work(run_dir: str, ready_fd: int | None) -> int:
    """The worker's process. Returns 0 if it ended in good order, so that it is not started again, and SWAP if another program is to take its place."""
    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)
    try:
        loop = _make_worker(run_dir)
    except (HqError, OSError) as error:
        _tell(ready_fd, f"the worker cannot start: {error}")
        print(f"hq-exec-server: {error}", file=sys.stderr, flush=True)
        # nobody is told of a later failure, so it is not tried for ever at the first start
        return 0 if ready_fd is not None else 1
    _tell(ready_fd, "up")
    return loop()


def _make_worker(run_dir: str) -> Callable[[], int]:
    """Everything that a worker needs, imported and built now: it may have to go on long after its files were replaced."""
    from hq.execserver.app import ExecServer
    from hq.execserver.backends.cgroup import prepare
    from hq.execserver.bootstrap import load_bootstrap
    from hq.execserver.check import cgroup_directory
    from hq.execserver.guard import Guarded
    from hq.execserver.supervisor import GOOD_END, SWAP, become_subreaper
    from hq.kernel.clock import SystemClock
    from hq.kernel.log import open_log
    from hq.kernel.loop import Loop
    from hq.kernel.zmqbus import ZmqClient
    from hq.model.batch import BATCH_BACKENDS

    os.chdir("/")
    become_subreaper()
    told = load_bootstrap(run_dir)
    log = open_log("exec-server", os.path.join(run_dir, "log"))
    clock = SystemClock()
    directory = cgroup_directory()
    cgroups = prepare(directory, [os.getpid(), os.getppid()]) if directory is not None else None

    def dial(address: str) -> ZmqClient:
        now = server.bootstrap
        key = now.server_key if address in now.servers else now.upstream_key
        return ZmqClient(address, key, now.public, now.secret)

    made = None
    if told.backend in BATCH_BACKENDS:
        from hq.execserver.batchsetup import make_batch

        made = make_batch(told, log.category("batch"))
    server = ExecServer(told, run_dir, log, dial, clock.now(), load=lambda: load_bootstrap(run_dir), cgroups=cgroups, batch=made.backend if made is not None else None)
    guarded = Guarded(server, run_dir, os.getppid(), own_program(VERSION), log.category("link"))
    loop = Loop(guarded, clock, made.ports if made is not None else ())
    if made is not None:
        from hq.execserver.batchnews import sealed_blob, signed_order
        from hq.execserver.pilots import PilotBackend

        for background in made.backgrounds:
            loop.watch(background)
        if isinstance(made.backend, PilotBackend):
            made.backend.bind(lambda key: signed_order(server, key), lambda digest: sealed_blob(server, digest))
    server.dialer.on_open = loop.add_port
    server.dialer.on_close = loop.remove_port

    def run() -> int:
        try:
            loop.run()
            return SWAP if guarded.is_swapping else GOOD_END
        except Exception:
            log.category("link").critical("the worker dies of an error of its own", exc_info=True)
            raise

    return run


def _tell(fd: int | None, text: str) -> None:
    if fd is not None:
        with contextlib.suppress(OSError):
            os.write(fd, text.replace("\n", " ").encode() + b"\n")
            os.close(fd)


if __name__ == "__main__":
    raise SystemExit(main())
