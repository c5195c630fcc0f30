"""Running a child process by a deadline: stdin given, the answer line found, nothing waited for that a daemon left open."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Mapping, Sequence

from hq.errors import RefusedError, UnavailableError
from hq.userserver.transports.deadline import Deadline
from hq.userserver.transports.sessions import AnswerReader, Ran

_STDERR_LIMIT = 64 * 1024
#: Seconds between the answer and the end of the child that gave it.
_PATIENCE = 2.0


def start_process(argv: Sequence[str], place: str, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """A child with three pipes, in a session of its own. Raises RefusedError if it cannot be executed."""
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=None if environment is None else dict(environment),
        )
    except (OSError, ValueError) as error:
        raise RefusedError(f"{place}: cannot run {argv[0]}: {error}") from error


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and take its status. What it started and detached lives on."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            # A pipe that the child closed early still has our bytes: not our problem any more.
            try:
                stream.close()
            except OSError:
                continue


def run_process(
    argv: Sequence[str], stdin: bytes, deadline: Deadline, place: str, environment: Mapping[str, str] | None = None
) -> Ran:
    """Run a child until it has answered and ended. Raises RefusedError if it cannot be executed, UnavailableError at the deadline."""
    process = start_process(argv, place, environment)
    try:
        return _talk(process, stdin, deadline, f"{place}: {os.path.basename(argv[0])}")
    finally:
        stop_process(process)


def _talk(process: subprocess.Popen[bytes], stdin: bytes, deadline: Deadline, what: str) -> Ran:
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    answer = AnswerReader()
    stderr = bytearray()
    left = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        # A detached daemon may hold stderr for ever; so the end of the child, not of its pipes, is what is waited for.
        while not answer.answer and process.stdout in (key.fileobj for key in selector.get_map().values()):
            try:
                events = selector.select(deadline.step(what))
            except UnavailableError as error:
                raise UnavailableError(f"{error}{_said(stderr, answer)}") from error
            for key, _ in events:
                if key.fileobj is process.stdin:
                    left = _write(process, left)
                    if not left:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    answer.feed(data)
                elif len(stderr) < _STDERR_LIMIT:
                    stderr += data
        answer.end()
    # With the answer in hand an ending is only waited for shortly: ssh hangs on while a daemon there holds its stderr.
    ending = deadline.within(_PATIENCE) if answer.answer else deadline
    while process.poll() is None:
        try:
            process.wait(ending.step(what))
        except subprocess.TimeoutExpired:
            continue
        except UnavailableError:
            if answer.answer:
                break
            raise
    try:
        stderr += os.read(process.stderr.fileno(), _STDERR_LIMIT)
    except BlockingIOError:
        pass
    return Ran(answer.answer, answer.noise, stderr.decode(errors="replace"), process.returncode)


def _write(process: subprocess.Popen[bytes], left: memoryview) -> memoryview:
    assert process.stdin is not None
    try:
        return left[os.write(process.stdin.fileno(), left) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        # It ended without reading; its stdout and stderr say why.
        return memoryview(b"")


def _said(stderr: bytearray, answer: AnswerReader) -> str:
    words = "; ".join(part for part in (stderr.decode(errors="replace").strip(), answer.noise.strip()) if part)
    return f"; it said: {words[:2000]}" if words else ""
