#!/usr/bin/python3
"""Speaks the dialogue of an exec-server's start and check, for tests of transports. Standard library only: any Python of the system runs it.

Words before the option change what it does: noise, refuse, silent, hold (the daemon keeps the pipes), mute (never answers), broken.
"""

import json
import os
import socket
import sys
import time


def main() -> int:
    """One dialogue."""
    words, option = sys.argv[1:-1], sys.argv[-1]
    if "noise" in words:
        print("Welcome to the cluster!\n{not json}\n[1, 2]", flush=True)
    if "mute" in words:
        print("I am stuck", file=sys.stderr, flush=True)
        time.sleep(60)
    if "broken" in words:
        print("Traceback: ImportError: no module named zmq", file=sys.stderr)
        return 3
    told = json.loads(sys.stdin.readline())
    assert sys.stdin.read() == "", "stdin goes on"
    if option == "--check":
        print(json.dumps({"python": "3.11.2", "version": "0", "ulimits": {"nofile": 1024, "nproc": None}, "lingering": False,
                          "way_back": {address: knock(address) for address in told["upstreams"]}}))  # fmt: skip
        return 0
    if "refuse" in words:
        print(json.dumps({"ok": False, "reason": "the disk of /var/tmp is full"}))
        return 1
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if "hold" not in words:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
        os.close(reader)
        os.close(writer)
        return daemon(told)
    os.close(writer)
    os.read(reader, 1)
    machine = {"uid": os.getuid(), "name": socket.gethostname(), "argv": sys.argv, "environ": dict(os.environ), "told": told}
    print(json.dumps({"ok": True, "pid": pid, "machine": machine}))
    return 0


def knock(address: str) -> "str | None":
    """Why an address cannot be reached; None: it can."""
    name, port = address.removeprefix("tcp://").rsplit(":", 1)
    try:
        socket.create_connection((name, int(port)), 1).close()
    except OSError as error:
        return str(error)
    return None


def daemon(told: "dict[str, object]") -> int:
    """Say hello to each upstream in turn, the last first, and echo what it sends; then end."""
    upstreams = told["upstreams"]
    assert isinstance(upstreams, list)
    for address in reversed(upstreams):
        name, port = address.removeprefix("tcp://").rsplit(":", 1)
        try:
            wire = socket.create_connection((name, int(port)), 2)
        except OSError:
            continue
        wire.settimeout(20)
        with wire:
            wire.sendall(f"{told['host']} {address}\n".encode())
            while data := wire.recv(65536):
                wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            wire.recv(1)
    if told["host"] == "lasting":
        time.sleep(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
