"""The body of a job: a JobSpec as the bytes that are signed, stored and forwarded verbatim.

MessagePack of the dataclass, fields in the order of their declaration, so that equal specs give equal bytes. Who has the
bytes never encodes them anew: the signature is over what was sent. This is not the place where a spec's values are judged
(`hq.model.job.check_spec`) or signatures checked (`hq.kernel.keys`).
"""

from __future__ import annotations

import msgspec

from hq.errors import RemoteError
from hq.model.job import JobSpec

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(JobSpec, strict=True)


def encode_spec(spec: JobSpec) -> bytes:
    """The bytes to sign. Raises RemoteError for text that is not Unicode or numbers beyond 64 bits."""
    try:
        return _ENCODER.encode(spec)
    except (ValueError, OverflowError, TypeError) as error:
        raise RemoteError(f"the job cannot be written as bytes: {error}") from None


def decode_spec(body: bytes) -> JobSpec:
    """Read a body. Raises RemoteError, never anything else, whatever the bytes are. Unknown fields are ignored."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise RemoteError(f"a job's body of {len(body)} bytes cannot be read: {error}") from None
