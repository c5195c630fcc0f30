"""Calls a transport as whoever runs it: an order as JSON on stdin, the outcome as JSON on stdout. Run by tests, as a user, by `python -c`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import psutil

from hq.model.host import HostSpec
from hq.userserver.transports.base import Bootstrap, Transports, TransportSettings

SIZE = 3_000_000


def serve(listener: socket.socket, met: dict[str, Any]) -> None:
    """Take connections; each says a line, is sent SIZE bytes and sends them back."""
    while True:
        try:
            wire, _ = listener.accept()
        except OSError:
            return
        with wire, wire.makefile("rb") as reader:
            line = reader.readline().decode().strip()
            data = os.urandom(SIZE)
            sender = threading.Thread(target=lambda wire=wire, data=data: (wire.sendall(data), wire.shutdown(socket.SHUT_WR)))
            sender.start()
            back = reader.read()
            sender.join()
        met[line] = hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


def main() -> None:
    """Do what stdin orders: a list of [method, host] in turn, on one set of transports."""
    order = json.load(sys.stdin)
    listener = socket.create_server((order.get("listen", "127.0.0.1"), 0))
    port = listener.getsockname()[1]
    met: dict[str, Any] = {}
    threading.Thread(target=serve, args=(listener, met), daemon=True).start()
    os.makedirs(order["settings"]["run_dir"], mode=0o700, exist_ok=True)
    for name in ("exec_server", "local_exec_server"):
        if name in order["settings"]:
            order["settings"][name] = tuple(order["settings"][name])
    transports = Transports(TransportSettings(**order["settings"]))
    outcomes = []
    for method, spec in order["calls"]:
        host = HostSpec(**spec)
        begun = time.monotonic()
        outcome: dict[str, Any] = {"value": None, "error": None}
        try:
            outcome["value"] = call(transports, method, host, port, order)
        except Exception as error:  # noqa: BLE001 - told to the test
            outcome["error"] = [type(error).__name__, str(error)]
        outcome["seconds"] = time.monotonic() - begun
        outcomes.append(outcome)
    end = time.monotonic() + order.get("wait", 0)
    while len(met) < order.get("meet", 0) and time.monotonic() < end:
        time.sleep(0.01)
    transports.close()
    json.dump({"outcomes": outcomes, "met": met, "port": port, "threads": threading.active_count()}, sys.stdout)


def call(transports: Transports, method: str, host: HostSpec, port: int, order: dict[str, Any]) -> Any:
    """One call; its value as JSON can hold it."""
    match method:
        case "start":
            told: dict[str, Any] = {
                "instance": "test-01234567",
                "host": host.name,
                "user": "alice",
                "upstreams": tuple(address.format(port=port) for address in order.get("upstreams", ())),
                "upstream_key": "U" * 40,
                "public": "P" * 40,
                "secret": "SECRET-CURVE",
                "sign_public": "ab" * 32,
                "seal_key": "SECRET-SEAL",
                "slots": host.slots,
                "heartbeat": 2.0,
                "version": "0",
                "protocol": 1,
                "local_port": port if order.get("way_back") else None,
            }
            started = transports.start(host, Bootstrap(**(told | order.get("bootstrap", {}))))
            return {name: getattr(started, name) for name in started.__dataclass_fields__}
        case "check":
            upstreams = [address.format(port=port) for address in order.get("upstreams", ())]
            return [[step.name, step.is_ok, step.text] for step in transports.check(host, upstreams)]
        case "forward":
            return transports.forward(host, port)
        case "lose":
            return lose(transports, host)
        case "abandon":
            os.kill(os.getpid(), signal.SIGKILL)
            return None
        case "close":
            return transports.close(host)
        case _:
            raise ValueError(method)


def lose(transports: Transports, host: HostSpec) -> bool:
    """End our sessions' sshd, as a broken network would; True once our end has noticed."""
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.name() == "sshd":
                process.kill()
        except psutil.Error:
            continue
    connection = transports.transport_for(host)._seats[host.name].connection
    end = time.monotonic() + 30
    while connection.is_alive and time.monotonic() < end:
        time.sleep(0.01)
    return not connection.is_alive


if __name__ == "__main__":
    main()
