"""`hq-admin`: an administrator's words to hq-server, and its answer as a table. The commands themselves are hq-server's registry.

`init` and `checkhost` are done here: the one makes the instance, the other is a question to the caller's own user-server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import hq
from hq.client.connect import checked
from hq.client.entry import run
from hq.client.links import UnixLink
from hq.client.options import COMMON, Option, help_text, parse
from hq.client.output import ROWS_SCHEMA, print_json, print_table
from hq.errors import HqError, NotAllowedError, RefusedError, SecurityError, UnavailableError, UsageError
from hq.kernel.files import make_private_dir, read_secret, write_secret
from hq.kernel.keys import make_curve_pair
from hq.kernel.places import ClientConfig, find_etc, keys_dir, read_client_config

PROGRAM = "hq-admin"
SCHEMA = "hq.admin.1"
ANSWER_TIMEOUT = 30.0
DIAL_TIMEOUT = 5.0
#: How hq-server begins when it does not know the key of a connection.
UNKNOWN_KEY = "hq-server does not know this key"

OPTIONS = (
    *COMMON,
    Option("--etc", "the instance's etc directory (default: HQ_ETC, $HQPATH/etc, ~/.config/hq, /etc/hq)", "DIR"),
    Option("--json", "print JSON (schema hq.admin.1)"),
    Option("--deadline", "of a drain: what may run again then starts elsewhere", "TIME"),
    Option("-q --quiet", "print the first column only, or nothing"),
)
DESCRIPTION = (
    "Commands of the cluster's owner. 'hq-admin help' asks hq-server for the list of its commands; 'hq-admin init DIR' makes a new "
    "instance; 'hq-admin checkhost HOST' proves that your own exec-server can run on a host.\n\nhQ's form verb:ARG is verb ARG."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run hq-admin. Returns the exit code."""
    return run(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    if argv[:1] == ["init"]:
        from hq.client.init import init_main

        return init_main(argv[1:])
    values, words = parse(OPTIONS, argv, PROGRAM)
    if "help" in values:
        print(help_text(f"{PROGRAM} [options] COMMAND [ARGUMENTS]", DESCRIPTION, OPTIONS))
        return 0
    if "version" in values:
        print(f"{PROGRAM} {hq.VERSION}")
        return 0
    if not words:
        raise UsageError(f"what should be done? '{PROGRAM} help' lists the commands")
    verb, colon, argument = words[0].partition(":")
    if verb == "init":
        raise UsageError(f"init comes first: {PROGRAM} init DIR")
    if verb == "checkhost":
        from hq.client.commands import dispatch

        rest = [*([argument] if colon else []), *words[1:]]
        etc = ["--etc", values["etc"]] if "etc" in values else []
        return dispatch(["checkhost", *etc, *(["--json"] if "json" in values else []), *rest])
    config = read_client_config(find_etc(values.get("etc")))
    if "deadline" in values:
        words += ["--deadline", values["deadline"]]
    answer = ask_admin(config, {"type": "admin.run", "words": words})
    return show(answer, values)


def show(answer: dict[str, Any], values: dict[str, Any]) -> int:
    """Print an admin.answer; returns the exit code."""
    columns, rows = answer.get("columns") or [], answer.get("rows") or []
    code = 0 if answer.get("is_done", True) else 1
    if "json" in values and answer.get("jobs") is not None:
        print_json({"schema": ROWS_SCHEMA, "rows": answer["jobs"], "is_cut": bool(answer.get("is_cut"))})
    elif "json" in values:
        print_json({"schema": SCHEMA, "text": answer.get("text", ""), "is_done": code == 0,
                    "rows": [dict(zip(columns, row, strict=False)) for row in rows]})  # fmt: skip
    elif "quiet" in values:
        for row in rows:
            print(row[0])
    else:
        if answer.get("text"):
            print(answer["text"])
        if columns and (rows or not answer.get("text")):
            print_table(columns, rows)
    return code


def ask_admin(config: ClientConfig, message: dict[str, Any]) -> dict[str, Any]:
    """Ask hq-server with the caller's administrator's key, which is made and registered at its first use.

    Raises UnavailableError that says whether hq-server runs, and what hq-server refuses.
    """
    public, secret = admin_keys(config)
    try:
        return _ask(config, public, secret, message)
    except HqError as error:
        if not str(error).startswith(UNKNOWN_KEY):
            raise
        unknown = error
    try:
        enrol(config, public)
    except UnavailableError as error:
        raise NotAllowedError(f"{unknown}\n{error}") from None
    return _ask(config, public, secret, message)


def admin_keys(config: ClientConfig) -> tuple[str, str]:
    """The caller's administrator's key pair, made if there is none. Raises SecurityError if others can read it."""
    folder = keys_dir(config.instance)
    public_path, secret_path = os.path.join(folder, "admin.public"), os.path.join(folder, "admin.secret")
    if os.path.lexists(public_path) and os.path.lexists(secret_path):
        return read_secret(public_path), read_secret(secret_path)
    make_private_dir(folder)
    public, secret = make_curve_pair()
    write_secret(secret_path, secret)
    write_secret(public_path, public)
    return public, secret


def enrol(config: ClientConfig, public: str) -> None:
    """Register an administrator's key at the Unix socket of hq-server's machine. Raises RefusedError with its words."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link = UnixLink(connected)
    try:
        connected.settimeout(DIAL_TIMEOUT)
        connected.connect(config.enrol_socket)
        link.send({"type": "key.enrol", "public": public, "role": "admin"})
        checked(link.receive(ANSWER_TIMEOUT))
    except (OSError, TimeoutError) as error:
        raise UnavailableError(
            f"an administrator's key is registered on hq-server's own machine, at {config.enrol_socket}: {getattr(error, 'strerror', None) or 'no answer'}"
        ) from None
    finally:
        link.close()


def _ask(config: ClientConfig, public: str, secret: str, message: dict[str, Any]) -> dict[str, Any]:
    """Ask the active hq-server: the first of those in client.yaml that listens and answers."""
    silent: list[str] = []
    for address in config.servers:
        try:
            _check_listening(config, address)
            return _ask_at(address, config, public, secret, message)
        except UnavailableError as error:
            silent.append(str(error))
        except SecurityError:
            # a hq-server that is stopped takes connections and proves nothing
            if len(config.servers) == 1:
                raise
            silent.append(f"something listens at {address}, but it does not prove to be hq-server")
    raise UnavailableError("\n".join(silent))


def _ask_at(address: str, config: ClientConfig, public: str, secret: str, message: dict[str, Any]) -> dict[str, Any]:
    from hq.client.remote import RemoteLink
    from hq.kernel.zmqbus import ZmqClient

    port = ZmqClient(address, config.server_key, public, secret)
    link = RemoteLink(port)
    try:
        try:
            link.send(message)
        except ConnectionError:
            raise SecurityError(
                f"something listens at {address}, but it does not prove to be the hq-server whose key stands in {config.etc}/client.yaml"
            ) from None
        answer = checked(link.receive(ANSWER_TIMEOUT))
        if answer["type"] == "peer.bye":
            raise UnavailableError(f"{address}: {answer.get('reason') or 'hq-server ends'}")
        return answer
    except ConnectionError:
        raise RefusedError("hq-server ended before it answered: the command may have been carried out; 'hq-admin audit' tells once it is up again") from None
    except TimeoutError:
        raise RefusedError(
            f"hq-server has not answered for {ANSWER_TIMEOUT:.0f} s; the command may still be carried out. Is the state database away? 'hq-admin status' tells"
        ) from None
    finally:
        link.close()


def _check_listening(config: ClientConfig, address: str) -> None:
    """Raises UnavailableError, with the command that starts hq-server, if nobody listens."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), DIAL_TIMEOUT).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UnavailableError(
            f"hq-server does not listen at {address} ({reason}); start it on its machine with: hq-server -d --etc {config.etc}"
        ) from None


if __name__ == "__main__":
    raise SystemExit(main())
