"""The access file: how commands on the user's other machines reach this user-server by CURVE. Home directory, mode 0600, gone when it ends."""

from __future__ import annotations

import json
import os

from hq.errors import HqError
from hq.kernel.files import make_private_dir, read_secret, write_secret
from hq.kernel.keys import make_curve_pair


class AccessFile:
    """Where it is and what stands in it. The client's key pair is made anew at each start."""

    def __init__(self, path: str | None, *, host: str, port: int, boot: str, public: str) -> None:
        """`path` None: there is none. `public` is the user-server's key, `boot` the name of this process."""
        self._path = path
        self._boot = boot
        self.client_public, secret = make_curve_pair()
        self._text = json.dumps({
            "host": host, "port": port, "boot": boot, "public": public, "client_public": self.client_public, "client_secret": secret,
        })  # fmt: skip

    def write(self) -> None:
        """Tell where we are. Raises OSError or SecurityError."""
        if self._path is not None:
            make_private_dir(os.path.dirname(self._path))
            write_secret(self._path, self._text)

    def remove(self) -> None:
        """Take it away, unless another user-server has written it since."""
        if self._path is None:
            return
        try:
            if json.loads(read_secret(self._path)).get("boot") == self._boot:
                os.unlink(self._path)
        except (OSError, HqError, ValueError, AttributeError):
            pass  # none is there, or it is not ours
