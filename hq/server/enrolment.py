"""Registering keys: who proves what, and how. The proof is made here; the core only notes the key.

Proofs: `peercred` (the Unix socket of hq-server's machine), `token` (of `hq-admin adduser`), `nonce file` (in the user's own
home, judged by its owner, read by a child process with a deadline: a home on a hanging file server must not stop hq-server).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pwd
import secrets
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hq.core.events import KeyEnrolled
from hq.errors import HqError, InputError, NotAllowedError, RefusedError, RemoteError
from hq.kernel.bus import Peer
from hq.kernel.files import filesystem_type
from hq.kernel.proofs import nonce_file_name, nonce_file_text
from hq.model.user import KeyRecord, Role, UserRecord
from hq.protocol.base import Message
from hq.protocol.peers import KeyChallenged, KeyEnrol
from hq.protocol.peers import KeyEnrolled as KeyEnrolledMessage
from hq.server.enrolsocket import EnrolLine
from hq.server.requests import STRANGER, Request, disabled_text

if TYPE_CHECKING:
    from hq.server.daemon import Server

TOKEN_LIFE = 86400.0  # seconds
NONCE_LIFE = 60.0
READ_DEADLINE = 5.0
MAX_PENDING = 1000
#: Roles that can be enrolled. Exec-servers are known to their user-server, clients too.
ROLES = frozenset({Role.USER_SERVER, Role.ADMIN})

#: How the child ends where hq-server's account may not go.
CLOSED = 3
# Runs in a child. O_PATH, for a home that may be passed through but not listed. Who can write into the home could put a file there that its
# owner wrote for something else; the file itself is never followed, is plain, has one name and is closed to writing by others.
_READER = """
import os, stat, sys
home, name, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found = os.fstat(folder)
    if found.st_uid not in (0, uid): sys.exit("%s belongs to user id %d" % (home, found.st_uid))
    if found.st_mode & 0o022: sys.exit("others may write into it (chmod go-w %s)" % home)
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
except PermissionError:
    sys.exit(3)
except OSError as error:
    sys.exit(error.strerror)
found = os.fstat(fd)
if not stat.S_ISREG(found.st_mode): sys.exit("it is no plain file")
if found.st_nlink != 1: sys.exit("it has several names")
if found.st_uid != uid: sys.exit("it belongs to user id %d" % found.st_uid)
if found.st_mode & 0o022: sys.exit("others may write it")
sys.stdout.write(os.read(fd, 1024).decode("ascii", "replace"))
"""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A nonce that somebody was asked to write into `home`. `until` is CLOCK_BOOTTIME."""

    nonce: str
    home: str
    uid: int
    until: float

    @property
    def path(self) -> str:
        """Where the file is looked for."""
        return os.path.join(self.home, nonce_file_name(self.nonce))


class Enrolment:
    """Challenges under way, by connection and user: with one home on two login machines, two may enrol the same key at the same time."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._pending: dict[tuple[Peer, str], Challenge] = {}

    def challenge(self, peer: Peer, user: str, now: float) -> Challenge:
        """A fresh nonce for this connection and user. Raises RefusedError if the user has no account here or too many are under way."""
        self.forget_old(now)
        if len(self._pending) >= MAX_PENDING:
            raise RefusedError("too many enrolments are under way: try again in a minute")
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise RefusedError(
                f"hq-server's machine has no account {user}, so no file of his can prove the key: ask the owner for a token (hq-admin adduser {user})"
            ) from None
        if account.pw_uid in (0, _overflow_uid()):
            # on file systems that map users or trust root, a file of these proves nothing
            raise NotAllowedError(f"keys of {user} are enrolled on hq-server's own machine, or by a token ('hq-admin adduser {user}')")
        found = Challenge(secrets.token_hex(32), account.pw_dir, account.pw_uid, now + NONCE_LIFE)
        self._pending[(peer, user)] = found
        return found

    def take(self, peer: Peer, user: str, now: float) -> Challenge | None:
        """The challenge under way for this connection and user; each counts once."""
        found = self._pending.pop((peer, user), None)
        return found if found is not None and found.until > now else None

    def forget_old(self, now: float) -> None:
        """Drop what was never answered."""
        self._pending = {name: found for name, found in self._pending.items() if found.until > now}


def _overflow_uid() -> int:
    """The user id that stands for everybody who has none here."""
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        return int(file.read())


def read_nonce_file(home: str, name: str, uid: int) -> str:
    """What stands in a nonce file of the user. Blocks up to `READ_DEADLINE` seconds. Raises RefusedError with the reason."""
    argv = [sys.executable, "-I", "-S", "-c", _READER, home, name, str(uid)]
    path = os.path.join(home, name)
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=READ_DEADLINE, check=False, close_fds=True, env={})
    except subprocess.TimeoutExpired:
        raise RefusedError(f"{path} could not be read on hq-server's machine within {READ_DEADLINE:.0f} s") from None
    if done.returncode == CLOSED:
        raise RefusedError(f"{home} is closed to the account of hq-server ({pwd.getpwuid(os.geteuid()).pw_name}), so no file in it can prove the key")
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason"]
        raise RefusedError(f"{path} does not prove the key on hq-server's machine: {reason[0]}")
    return done.stdout.decode("ascii", "replace")


def make_token(server: Server, user: str) -> str:
    """A one-time token for a user, good for a day. Only its hash is kept."""
    token = secrets.token_urlsafe(24)
    server.set_setting(_token_name(token), json.dumps({"user": user, "until": server.now.wall + TOKEN_LIFE}))
    return token


def _token_name(token: str) -> str:
    return "token:" + hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


def use_token(server: Server, token: str, user: str) -> bool:
    """Whether the token is good for this user. It is used up by that."""
    name = _token_name(token)
    kept = server.settings.get(name)
    if not kept:
        return False
    about: dict[str, Any] = json.loads(kept)
    if not hmac.compare_digest(about["user"].encode(), user.encode()) or about["until"] < server.now.wall:
        return False
    server.set_setting(name, "")
    return True


def _check(server: Server, message: KeyEnrol, user: str) -> UserRecord:
    """The user for whom the key may be registered. Raises HqError."""
    found = server.cluster.user(user)
    if found is None:
        raise NotAllowedError(f"{user} is not a user of this instance: ask its owner ('hq-admin adduser {user}')")
    if not found.is_enabled:
        raise NotAllowedError(disabled_text(user))
    if message.role not in ROLES:
        raise RemoteError(f"a key for the role {message.role.value} is not registered here")
    if message.role is Role.ADMIN and not found.is_admin:
        raise NotAllowedError(f"{user} is not an administrator of this instance (the file users says who is)")
    if len(message.public) != 40 or not message.public.isascii() or not message.public.isprintable():
        raise RemoteError("that is no public key")
    if message.sign_public and (len(message.sign_public) != 64 or any(each not in "0123456789abcdef" for each in message.sign_public)):
        raise RemoteError("that is no public key for signatures")
    before = server.cluster.key(message.public)
    if before is not None and (before.user != user or before.role is not message.role):
        raise NotAllowedError("this key is registered already, for another user or role: make a new one")
    if before is not None and not before.is_enabled:
        raise NotAllowedError("this key was revoked: remove it and make a new one")
    return found


def _register(server: Server, request: Request, message: KeyEnrol, user: str, proof: str) -> None:
    key = KeyRecord(public=message.public, user=user, role=message.role, sign_public=message.sign_public, created=server.now.wall, proof=proof)
    answer = KeyEnrolledMessage(user=user, role=message.role, proof=proof)
    server.log.category("security").info("key %.8s of %s enrolled as %s by %s", key.public, user, key.role.value, proof)
    server.add(KeyEnrolled(token=request.with_render(lambda value: answer), key=key))


def take_message(server: Server, request: Request, message: KeyEnrol) -> None:
    """key.enrol over TCP: the key is the connection's, the user a claim that a token or a nonce file must prove."""
    assert request.peer is not None
    if message.public != request.peer.key:
        raise RemoteError("a connection can only enrol its own key")
    _check(server, message, message.user)
    if message.token:
        if not use_token(server, message.token, message.user):
            raise NotAllowedError("the token is not good (any more): ask the owner for another ('hq-admin adduser')")
        _register(server, request, message, message.user, "token")
        return
    challenge = server.enrolment.take(request.peer, message.user, server.now.boot)
    if challenge is None:
        new = server.enrolment.challenge(request.peer, message.user, server.now.boot)
        request.reply(KeyChallenged(path=new.path, nonce=new.nonce))
        return
    found = challenge

    def take(text: str) -> None:
        if not hmac.compare_digest(text.encode(), nonce_file_text(server.enrolment.instance, message.public, found.nonce).encode()):
            raise NotAllowedError(f"{found.path} does not hold the nonce for this key: it is not registered")
        _check(server, message, message.user)
        kind = filesystem_type(found.home)
        _register(server, request, message, message.user, f"nonce file{f' on {kind}' if kind else ''}")

    server.ask(request, lambda: read_nonce_file(found.home, nonce_file_name(found.nonce), found.uid), take)


def take_line(server: Server, line: EnrolLine) -> None:
    """key.enrol over the Unix socket: the kernel says who it is."""

    def send(message: Message) -> None:
        line.answer(message)

    request = Request(STRANGER, send)
    try:
        if line.message is None:
            raise RemoteError(line.note)
        try:
            user = pwd.getpwuid(line.uid).pw_name
        except KeyError:
            raise InputError(f"hq-server's machine has no account of user id {line.uid}") from None
        _check(server, line.message, user)
        _register(server, request, line.message, user, "peercred")
    except HqError as error:
        server.log.category("security").info("enrolment by uid %d: %s", line.uid, error)
        request.fail(error)
