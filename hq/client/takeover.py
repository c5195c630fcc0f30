"""The verb `takeover`: the caller's user-server moves from another machine to this one, with its ledger and its run book."""

from __future__ import annotations

import base64
import os
import sys

from hq.client.links import dial_unix, is_this_machine, read_access
from hq.client.spawn import start, user_server_argv
from hq.errors import HqError, RemoteError, UnavailableError
from hq.kernel.files import make_private_dir
from hq.kernel.places import user_run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from hq.client.call import Call
    from hq.client.remote import RemoteLink

ANSWER_WITHIN = 30.0


def takeover(call: Call, words: list[str]) -> int:
    """Move it. One that does not answer is replaced all the same; then its ledger stays where it is, and the user is told so."""
    config = call.session.config
    run_dir = user_run_dir(config.instance)
    path = os.path.join(run_dir, "client.sock")
    here = dial_unix(path)
    if here is not None:
        here.close()
        print("your user-server is on this machine")
        return 0
    access = read_access(config.instance)
    make_private_dir(run_dir)
    where = str(access.get("host", "")) if access is not None else ""
    if access is not None and not is_this_machine(where):
        _bring(access, where, run_dir)
    start([*user_server_argv(config.etc), "--takeover"], "your user-server")
    print(f"your user-server is on this machine now{f' (it was on {where})' if where and not is_this_machine(where) else ''}")
    return 0


def _bring(access: dict[str, Any], where: str, run_dir: str) -> None:
    """Ledger and run book of the user-server there, which ends after that."""
    from hq.client.remote import dial_remote

    link = dial_remote(access)
    try:
        told = _ask(link, {"type": "ledger.ask", "with_book": True}, "ledger.told") if link is not None else None
        if link is None or told is None:
            print(
                f"hq-client: your user-server on {where} does not answer, so that its ledger of what was started stays there; "
                "hq-server is asked to let this one in instead", file=sys.stderr)  # fmt: skip
            return
        keep_lines(os.path.join(run_dir, "ledger"), [base64.b64decode(told["data"])])
        try:
            keep_lines(os.path.join(run_dir, "ledger-book"), _book_of(link) if told.get("has_book") else ())
        except (OSError, HqError) as error:
            print(f"hq-client: the run book on {where} stays there, at least in part ({error}): it matters only if the state database is restored", file=sys.stderr)
    finally:
        if link is not None:
            link.close()


def _book_of(link: RemoteLink) -> Iterator[bytes]:
    offset = 0
    while True:
        told = _ask(link, {"type": "book.ask", "offset": offset}, "book.told")
        if told is None:
            raise UnavailableError("it does not answer any more")
        data = base64.b64decode(told["data"])
        offset += len(data)
        yield data
        if told["is_last"]:
            return


def _ask(link: RemoteLink, message: dict[str, Any], expected: str) -> dict[str, Any] | None:
    """The answer of this type; None if there is none."""
    try:
        link.send(message)
        answer = link.receive(ANSWER_WITHIN)
    except (TimeoutError, ConnectionError, RemoteError):
        return None
    if answer["type"] != expected:
        raise UnavailableError(f"your user-server there does not give its ledger: {answer.get('text', answer['type'])}")
    return answer


def keep_lines(path: str, pieces: Iterable[bytes]) -> None:
    """Add what another machine's ledger or run book says to this one's: the lines name what they speak of anew. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"\n")
        for piece in pieces:
            file.write(piece)
        file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())
