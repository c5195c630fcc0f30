"""`hq-client enrol`: register a key with hq-server. Mostly the user-server does it by itself; this is for when it cannot.

On the server's machine its Unix socket sees who asks, so `ssh SERVER hq-client enrol --public …` is ssh as proof. With a token
from the owner, the token is put where the user-server looks for it.
"""

from __future__ import annotations

import os
import socket
import sys

from hq.client.connect import checked
from hq.client.links import UnixLink
from hq.errors import RefusedError, UnavailableError
from hq.kernel.files import make_private_dir, read_secret, write_secret
from hq.kernel.places import ClientConfig, find_etc, hq_home, keys_dir, read_client_config
from hq.kernel.proofs import ssh_proof_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hq.client.call import Call


def enrol(call: Call, words: list[str]) -> int:
    """Register the key that is named, or the caller's own."""
    config = read_client_config(find_etc(call.values.get("etc")))
    token = call.values.get("token")
    if token is not None:
        folder = make_private_dir(os.path.join(hq_home(), config.instance))
        write_secret(os.path.join(folder, "token"), token)
        # something that only hq-server can answer: by that the user-server gets its key registered, or says why not
        call.session.ask({"type": "host.query"})
        print("hq-server knows your key")
        return 0
    public, sign_public = call.values.get("public"), call.values.get("sign_public", "")
    if public is None:
        public, sign_public = own_keys(config.instance)
        if public is None:
            # the keys are made and registered by the user-server's first start
            call.session.ask({"type": "peer.ask", "what": "ping"})
            public, sign_public = own_keys(config.instance)
    if public is None:
        raise UnavailableError("your user-server is up, but has made no key: see its log")
    # it imports ZeroMQ, which costs other commands too much
    from hq.kernel.keys import public_from_text

    answer = ask_server(config, public_from_text(public), sign_public or "")
    print(f"the key is registered for {answer}")
    return 0


def own_keys(instance: str) -> tuple[str | None, str]:
    """The caller's public keys; None if there are none yet. Raises SecurityError."""
    folder = keys_dir(instance)
    if not os.path.exists(os.path.join(folder, "curve.public")):
        return None, ""
    return read_secret(os.path.join(folder, "curve.public")), read_secret(os.path.join(folder, "sign.public"))


def ask_server(config: ClientConfig, public: str, sign_public: str) -> str:
    """Register at the server's Unix socket; the user's name by the server's word. Raises RefusedError."""
    if not os.path.exists(config.enrol_socket):
        from hq.kernel.keys import public_in_hex

        command = ssh_proof_command(config, os.path.abspath(sys.argv[0]), public_in_hex(public), sign_public or "KEY")
        raise RefusedError(f"hq-server's socket {config.enrol_socket} is not on this machine; register from here by\n{command}")
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link = UnixLink(connected)
    try:
        connected.connect(config.enrol_socket)
        link.send({"type": "key.enrol", "public": public, "role": "user-server", "sign_public": sign_public})
        answer = checked(link.receive(15.0))
    except (OSError, TimeoutError) as error:
        raise UnavailableError(f"hq-server does not answer at {config.enrol_socket}: {error or 'no answer in time'}") from None
    finally:
        link.close()
    return str(answer.get("user", "you"))
