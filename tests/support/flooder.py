"""A user who floods, as a program of its own that any user can run with `python -c`: it says the same over and over and reads no answer.

`unix PATH LINES CONNECTIONS`, or `zmq ADDRESS SERVER_KEY KEYS FRAMES CONNECTIONS` with the folder of his CURVE keys. The files hold what is
said, each piece after its length; eight times `@` in one becomes a number of its own. Ends with its standard input. Standard library and zmq only.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path


def pieces(path: str) -> Iterator[bytes]:
    """What the file holds, over and over."""
    data, place, found = Path(path).read_bytes(), 0, []
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        found.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    numbers = count()
    for piece in cycle(found):
        yield piece.replace(b"@" * 8, b"%08d" % next(numbers)) if b"@" * 8 in piece else piece


def is_over() -> bool:
    """Whether whoever started us has had enough."""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1)


def unix(path: str, lines: str, connections: str) -> int:
    """Flood a socket; who is hung up on dials again."""
    said, sent = pieces(lines), 0
    crowd: list[tuple[socket.socket, bytearray]] = []
    while not is_over():
        while len(crowd) < int(connections):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                sock.connect(path)
            except OSError:
                break  # its queue is full
            crowd.append((sock, bytearray()))
        for sock, rest in list(crowd):
            while len(rest) < 1 << 16:
                rest += next(said)
            try:
                done = sock.send(rest)
                del rest[:done]
                sent += done
            except BlockingIOError:
                continue
            except OSError:
                sock.close()
                crowd.remove((sock, rest))
        select.select([], [sock for sock, _ in crowd[:1000]], [], 0.05)
    return sent


def zmq(address: str, server_key: str, keys: str, frames: str, connections: str) -> int:
    """Flood a port with a key that it knows."""
    import zmq as library

    context, said, sent = library.Context(1), pieces(frames), 0
    crowd = []
    for _ in range(int(connections)):
        sock = context.socket(library.DEALER)
        sock.curve_publickey, sock.curve_secretkey = ((Path(keys) / f"curve.{name}").read_bytes().strip() for name in ("public", "secret"))
        sock.curve_serverkey = server_key.encode()
        sock.linger, sock.rcvhwm, sock.sndhwm = 0, 1, 2
        sock.connect(address)
        crowd.append(sock)
    while not is_over():
        for sock in crowd:
            for _ in range(20):
                frame = next(said)
                try:
                    sock.send(frame, library.NOBLOCK)
                except library.Again:
                    break
                sent += len(frame)
        if not any(sock.poll(0, library.POLLOUT) for sock in crowd):
            crowd[0].poll(20, library.POLLOUT)
    os.write(1, b"%d\n" % sent)
    os._exit(0)  # without the patience of a context that still has messages


if __name__ == "__main__":
    print({"unix": unix, "zmq": zmq}[sys.argv[1]](*sys.argv[2:]))
