"""Keys: CURVE pairs for connections, Ed25519 for signatures, and the seal of environments and scripts.

libsodium by PyNaCl and pyzmq does the work; this module only fixes the formats. Secrets never appear in messages of exceptions.
"""

from __future__ import annotations

import hashlib
import struct

import zmq
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.secret import SecretBox
from nacl.signing import SigningKey, VerifyKey
from nacl.utils import random as random_bytes
from zmq.utils import z85

from hq.errors import SecurityError, UsageError

_NONCE = SecretBox.NONCE_SIZE


def make_curve_pair() -> tuple[str, str]:
    """A new CURVE key pair: public and secret, 40 characters of Z85 each."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def public_in_hex(public: str) -> str:
    """A CURVE public key for a command line: Z85 is full of what shells take for their own."""
    return z85.decode(public.encode("ascii")).hex()


def public_from_text(text: str) -> str:
    """A CURVE public key as it is sent, from Z85 or hex. Raises UsageError."""
    try:
        public = z85.encode(bytes.fromhex(text)).decode() if len(text) == 64 else text
        if len(z85.decode(public.encode("ascii"))) == 32:
            return public
    except (ValueError, KeyError, struct.error):
        pass
    raise UsageError("a public key has 64 hexadecimal digits (or 40 characters of Z85)")


def make_sign_pair() -> tuple[str, str]:
    """A new Ed25519 pair: public and secret (seed), hex."""
    key = SigningKey.generate()
    return bytes(key.verify_key).hex(), bytes(key).hex()


def make_seal_key() -> str:
    """A new key for sealing, hex."""
    return random_bytes(SecretBox.KEY_SIZE).hex()


class Signer:
    """Signs job specs. Only a user-server has one."""

    def __init__(self, secret: str) -> None:
        self._key = SigningKey(bytes.fromhex(secret))

    def sign(self, body: bytes) -> bytes:
        """The 64 bytes of the signature over `body`."""
        return bytes(self._key.sign(body).signature)


class Verifier:
    """Checks signatures of one user."""

    def __init__(self, public: str) -> None:
        self._key = VerifyKey(bytes.fromhex(public))

    def check(self, body: bytes, signature: bytes) -> None:
        """Raises SecurityError unless `signature` is the user's over exactly these bytes."""
        try:
            self._key.verify(body, signature)
        except (BadSignatureError, ValueError, TypeError):
            raise SecurityError("the signature of the job does not fit: it was not signed by its user, or was altered on the way") from None


def digest_of(data: bytes) -> str:
    """The name of a blob: BLAKE2b-128 of its bytes, hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class Sealer:
    """Seals and opens environments and scripts with a key of the user that hq-server never has.

    The nonce is a keyed hash of the content (as in SIV modes, RFC 5297): the same environment seals to the same bytes, so
    that it is stored and sent once; equality of two sealed contents is all that a reader learns.
    """

    def __init__(self, key: str) -> None:
        self._secret = bytes.fromhex(key)
        self._box = SecretBox(self._secret)

    def seal(self, data: bytes) -> tuple[str, bytes]:
        """The digest (of the sealed bytes) and the sealed bytes."""
        nonce = hashlib.blake2b(data, key=self._secret, digest_size=_NONCE, person=b"hq seal nonce").digest()
        sealed = bytes(self._box.encrypt(data, nonce))
        return digest_of(sealed), sealed

    def open(self, sealed: bytes, digest: str) -> bytes:
        """The content. Raises SecurityError if the bytes are not those that `digest` names, or were not sealed with this key."""
        if digest_of(sealed) != digest:
            raise SecurityError("a sealed environment or script is not the one that was signed")
        try:
            return bytes(self._box.decrypt(sealed))
        except (CryptoError, ValueError):
            raise SecurityError("a sealed environment or script cannot be opened with this user's key") from None
