"""Has exec-servers started, checked and let go, in the background. Whether and when is `execs`' business."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hq import VERSION
from hq.errors import HqError
from hq.kernel.clock import Now
from hq.kernel.daemon import Background
from hq.model.batch import BATCH_BACKENDS, BatchSettings
from hq.model.host import HostSpec
from hq.protocol.base import PROTOCOL
from hq.userserver.hosts import HostMemory, Routes
from hq.userserver.keyring import ExecKeys, Keyring
from hq.userserver.transports.base import Bootstrap, Transport, Transports

OnDone = Callable[[Any, "BaseException | None", Now], None]


class Starter:
    """Everything that a start needs to know. Outcomes come back by `OnDone`: value, error, moment."""

    def __init__(
        self, *, transport: Transport, background: Background, routes: Routes, keys: ExecKeys, keyring: Keyring, memory: HostMemory,
        instance: str, user: str, heartbeat: float, server: tuple[tuple[str, ...], str] = (("",), ""), backends: Callable[[], Mapping[str, BatchSettings]] = dict,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._background = background
        self._routes = routes
        self._keys = keys
        self._keyring = keyring
        self._memory = memory
        self._instance = instance
        self._user = user
        self._heartbeat = heartbeat
        self._server = server  # addresses and key of hq-server
        self._backends = backends
        self._cancel = threading.Event()
        self._kinds: set[str] = set()

    def get_ready(self, hosts: Iterable[HostSpec]) -> None:
        """These are the hosts: what their starts need is imported now, in the background."""
        new = {spec.transport: spec for spec in hosts if spec.transport not in self._kinds}
        if new and isinstance(self._transport, Transports):
            transports = self._transport
            self._kinds |= new.keys()
            self._background.run(lambda value, error, now: None, lambda: transports.get_ready(new.values()))

    def start(self, spec: HostSpec, done: OnDone) -> None:
        """Start the exec-server on a host, or find the one that runs: `done` gets a Started. Raises HqError or OSError for its keys."""
        public, secret = self._keys.of(spec.name)
        is_root_allowed = self._memory.allow_root
        # made in the background, for the routes ask the resolver
        self._background.run(done, lambda: self._transport.start(spec, self._bootstrap(spec, public, secret, is_root_allowed), self._cancel))

    def check(self, spec: HostSpec, done: OnDone) -> None:
        """Prove that one can run there: `done` gets the steps."""
        self._background.run(done, lambda: self._transport.check(spec, self._routes.to(spec), self._routes.port))

    def release(self, spec: HostSpec, done: OnDone) -> None:
        """The exec-server got through without the connection that started it."""
        self._background.run(done, lambda: self._transport.release(spec))

    def close(self) -> None:
        """Give up what is under way, and all connections."""
        self._cancel.set()
        try:
            self._transport.close()
        except (HqError, OSError):
            pass  # whatever it was, it is over with this process

    def _bootstrap(self, spec: HostSpec, public: str, secret: str, allow_root: bool) -> Bootstrap:
        # read for each start, so that a change needs no new user-server
        batch = self._backends().get(spec.name, BatchSettings()) if spec.backend in BATCH_BACKENDS else None
        return Bootstrap(
            instance=self._instance, host=spec.name, user=self._user, upstreams=self._routes.to(spec), upstream_key=self._keyring.public,
            public=public, secret=secret, sign_public=self._keyring.sign_public, seal_key=self._keyring.seal_key, slots=spec.slots,
            heartbeat=self._heartbeat, version=VERSION, protocol=PROTOCOL, allow_root=allow_root, server=self._server[0][0],
            standbys=self._server[0][1:], server_key=self._server[1],
            backend=spec.backend, batch=batch, local_port=None if spec.transport == "local" else self._routes.port,
        )  # fmt: skip
