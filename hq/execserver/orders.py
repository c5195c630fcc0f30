"""What must hold before an order is believed: the user's signature, and that the order stays inside what was signed."""

from __future__ import annotations

from collections import OrderedDict

from hq.errors import HqError, InputError, RemoteError, SecurityError
from hq.kernel.keys import Verifier
from hq.model.ids import PLAIN
from hq.model.indexset import IndexSet, parse_array
from hq.model.job import JobSpec, SignedSpec, check_spec
from hq.model.runs import StartOrder
from hq.protocol.specs import decode_spec

#: No task is tried more often; a number beyond it is nonsense or an attack.
MAX_ATTEMPT = 100_000
_KEPT = 4096


class OrderBook:
    """Checks signatures, once for each body, and orders against them."""

    def __init__(self, instance: str, user: str, sign_public: str) -> None:
        self._instance = instance
        self._user = user
        self._verifier = Verifier(sign_public)
        self._checked: OrderedDict[SignedSpec, tuple[JobSpec, IndexSet | None]] = OrderedDict()

    def open(self, signed: SignedSpec) -> JobSpec:
        """The spec that the user signed. Raises SecurityError for a wrong signature or another's job, RemoteError if unreadable."""
        return self._open(signed)[0]

    def _open(self, signed: SignedSpec) -> tuple[JobSpec, IndexSet | None]:
        known = self._checked.get(signed)
        if known is not None:
            return known
        self._verifier.check(signed.body, signed.signature)
        spec = decode_spec(signed.body)
        if spec.instance != self._instance:
            raise SecurityError(f"the job was signed for the instance {spec.instance}, this is {self._instance}")
        if spec.user != self._user:
            raise SecurityError(f"the job belongs to {spec.user}, this exec-server runs jobs of {self._user}")
        try:
            check_spec(spec)
            indices = parse_array(spec.indices)[0] if spec.indices else None
        except InputError as error:
            raise RemoteError(f"the job cannot be run: {error}") from None
        self._checked[signed] = spec, indices
        if len(self._checked) > _KEPT:
            self._checked.popitem(last=False)
        return spec, indices

    def admit(self, order: StartOrder, signed: SignedSpec | None) -> JobSpec | str:
        """The spec to run for an order, or why it must not be run."""
        if signed is None:
            return "the order came without the job that the user signed"
        try:
            spec, indices = self._open(signed)
        except HqError as error:
            return str(error)
        if (order.index == PLAIN) != (indices is None) or (indices is not None and order.index not in indices):
            return f"the index {order.index} is not among those that the user signed ({spec.indices or 'none'})"
        if not 1 <= order.attempt <= MAX_ATTEMPT:
            return f"attempt {order.attempt} is out of range"
        if order.job < 1:
            return f"{order.job} is not a job's number"
        return spec
