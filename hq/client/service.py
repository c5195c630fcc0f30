"""Verbs about the user-server and hosts: ping, shutdown, checkhost."""

from __future__ import annotations

import time

from hq.client.output import cell, print_json
from hq.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hq.client.call import Call

#: A host check logs in and tries every way back; each step has its own deadline.
CHECK_TIMEOUT = 180.0
#: Exec-servers are told, and some of them are far away.
SHUTDOWN_TIMEOUT = 60.0


def ping(call: Call, words: list[str]) -> int:
    """Answered or not; never starts a user-server."""
    call.may_start = False
    began = time.perf_counter()
    call.session.ask({"type": "peer.ask", "what": "ping"}, timeout=10.0)
    milliseconds = (time.perf_counter() - began) * 1000
    if call.is_json:
        print_json({"schema": "hq.ping.1", "milliseconds": milliseconds})
    else:
        print(f"pong ({milliseconds:.1f} ms)")
    return 0


def shutdown(call: Call, words: list[str]) -> int:
    """Stop the user-server; one that is not there is no error."""
    call.may_start = False
    try:
        for _ in call.session.stream({"type": "peer.shutdown", "and_hosts": bool(call.values.get("hosts"))}, timeout=SHUTDOWN_TIMEOUT):
            pass  # its goodbye; the end of the connection is the end of the process
    except (ConnectionError, TimeoutError):
        pass
    except UnavailableError as error:
        if "not running" not in str(error):
            raise
        print("your user-server is not running")
        return 0
    print("your user-server has stopped; running jobs run on")
    return 0


def checkhost(call: Call, words: list[str]) -> int:
    """Show the steps of a check. Exit code 1 if one failed."""
    answer = call.session.ask({"type": "host.check", "host": words[0]}, timeout=CHECK_TIMEOUT)
    steps = answer["steps"]
    if call.is_json:
        print_json({"schema": "hq.check.1", "host": answer["host"], "steps": steps})
    else:
        width = max((len(step["name"]) for step in steps), default=0)
        for step in steps:
            print(f"{'ok  ' if step['is_ok'] else 'FAIL'}  {cell(step['name']):<{width}}  {cell(step['text'])}")
    return 0 if all(step["is_ok"] for step in steps) else 1
