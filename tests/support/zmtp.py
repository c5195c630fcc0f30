"""A peer that speaks ZMTP with CURVE by itself (RFC 23, 25), so that it can say what ZeroMQ's own library never would."""

from __future__ import annotations

import socket
import struct
from itertools import count

from nacl.public import Box, PrivateKey, PublicKey
from zmq.utils import z85

_GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + b"\0" + b"\0" * 31


class RawPeer:
    """A DEALER with a key of its own, connected to a server's end."""

    def __init__(self, port: int, server_public: str, public: str, secret: str) -> None:
        """Dial and shake hands. Raises OSError if the other end hangs up."""
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._numbers = count(1)
        server, mine, short = PublicKey(z85.decode(server_public)), PrivateKey(z85.decode(secret)), PrivateKey.generate()
        self.sock.sendall(_GREETING)
        self._receive(64)
        number = self._number()
        proof = Box(short, server).encrypt(b"\0" * 64, b"CurveZMQHELLO---" + number).ciphertext
        self._command(b"\x05HELLO\x01\x00" + b"\0" * 72 + bytes(short.public_key) + number + proof)
        welcome = self._frame()
        assert welcome.startswith(b"\x07WELCOME")
        opened = Box(short, server).decrypt(welcome[24:], b"WELCOME-" + welcome[8:24])
        server_short, cookie = PublicKey(opened[:32]), opened[32:]
        self._box = Box(short, server_short)
        nonce = b"\x01" * 16
        vouch = Box(mine, server_short).encrypt(bytes(short.public_key) + bytes(server), b"VOUCH---" + nonce).ciphertext
        told = z85.decode(public) + nonce + vouch + b"\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
        number = self._number()
        self._command(b"\x08INITIATE" + cookie + number + self._box.encrypt(told, b"CurveZMQINITIATE" + number).ciphertext)
        assert self._frame().startswith(b"\x05READY")

    def send(self, part: bytes, *, has_more: bool = False) -> None:
        """One part of a message. Raises OSError if the other end hangs up."""
        number = self._number()
        body = b"\x07MESSAGE" + number + self._box.encrypt(bytes([has_more]) + part, b"CurveZMQMESSAGEC" + number).ciphertext
        self.sock.sendall((b"\x00" + bytes([len(body)]) if len(body) < 256 else b"\x02" + struct.pack(">Q", len(body))) + body)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def _number(self) -> bytes:
        return struct.pack(">Q", next(self._numbers))

    def _command(self, body: bytes) -> None:
        self.sock.sendall((b"\x04" + bytes([len(body)]) if len(body) < 256 else b"\x06" + struct.pack(">Q", len(body))) + body)

    def _frame(self) -> bytes:
        flags, size = self._receive(2)
        if flags & 2:
            size = struct.unpack(">Q", bytes([size]) + self._receive(7))[0]
        return self._receive(size)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise ConnectionError("the other end hung up")
            data += piece
        return data
