"""The verb `takeover`: the caller's user-server moves from another machine to this one, with its ledger."""

from __future__ import annotations

import base64
import os
import sys

from hq.client.links import dial_unix, is_this_machine, read_access
from hq.client.spawn import start, user_server_argv
from hq.errors import HqError, UnavailableError
from hq.kernel.files import make_private_dir
from hq.kernel.places import user_run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hq.client.call import Call

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
        data = _ledger_of(access)
        if data is None:
            print(
                f"hq-client: your user-server on {where} does not answer, so that its ledger of what was started stays there; "
                "hq-server is asked to let this one in instead", file=sys.stderr)  # fmt: skip
        else:
            keep_ledger(os.path.join(run_dir, "ledger"), data)
    start([*user_server_argv(config.etc), "--takeover"], "your user-server")
    print(f"your user-server is on this machine now{f' (it was on {where})' if where and not is_this_machine(where) else ''}")
    return 0


def _ledger_of(access: dict[str, Any]) -> bytes | None:
    """What the ledger there says, after which that user-server ends; None if it does not answer."""
    from hq.client.remote import dial_remote

    link = dial_remote(access)
    if link is None:
        return None
    try:
        link.send({"type": "ledger.ask"})
        answer = link.receive(ANSWER_WITHIN)
    except (TimeoutError, ConnectionError, HqError):
        return None
    finally:
        link.close()
    if answer["type"] != "ledger.told":
        raise UnavailableError(f"your user-server there does not give its ledger: {answer.get('text', answer['type'])}")
    return base64.b64decode(answer["data"])


def keep_ledger(path: str, data: bytes) -> None:
    """Add another machine's ledger to this one's: its lines name what they speak of anew. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"\n" + data + b"\n")
        file.flush()
        os.fsync(file.fileno())
