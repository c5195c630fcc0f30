"""From what a command asks for to what is signed: seals environment and script, fills in defaults, checks, signs.

No socket, no file. What the scheduler may still decide (`Wishes`) is passed on as it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hq.errors import HqError, InputError
from hq.kernel.keys import Sealer, Signer
from hq.model.job import JobSpec, SignedSpec, check_spec, check_wishes
from hq.protocol.codec import MAX_FRAME
from hq.protocol.jobs import JobAsk, JobRequest, JobSubmit, SubmitItem
from hq.protocol.specs import encode_spec


@dataclass(slots=True)
class Prepared:
    """Signed jobs, and all sealed contents that they name."""

    items: tuple[SubmitItem, ...]
    blobs: dict[str, bytes] = field(default_factory=dict)
    is_dry_run: bool = False

    def message(self, known: set[str]) -> JobSubmit:
        """The submission, without contents that hq-server has (`known`). Raises InputError if it is too large for one message."""
        blobs = {digest: sealed for digest, sealed in self.blobs.items() if digest not in known}
        size = sum(map(len, blobs.values())) + sum(len(item.signed.body) + 200 for item in self.items)
        if size > MAX_FRAME * 3 // 4:
            raise InputError(
                f"the submission has {size >> 20} MiB; at most {(MAX_FRAME * 3 // 4) >> 20} MiB can be sent at once: "
                "submit in several parts, or pass less of the environment (--export)"
            )
        return JobSubmit(items=self.items, blobs=blobs, is_dry_run=self.is_dry_run)


class Preparer:
    """Signs for one user of one instance."""

    def __init__(self, instance: str, user: str, signer: Signer, sealer: Sealer) -> None:
        self._instance = instance
        self._user = user
        self._signer = signer
        self._sealer = sealer
        self._last: tuple[tuple[bytes, ...], str, bytes] | None = None

    def prepare(self, ask: JobAsk) -> Prepared:
        """Seal, check and sign all jobs of a submission. Raises InputError that names the line of a jobs file, if there is one."""
        if not ask.jobs:
            raise InputError("there is no job in the submission")
        blobs: dict[str, bytes] = {}
        items = []
        for position, job in enumerate(ask.jobs):
            try:
                env, sealed = self._sealed(job.env)
                blobs[env] = sealed
                script = ""
                if job.script is not None:
                    script, sealed = self._sealer.seal(job.script)
                    blobs[script] = sealed
                spec = self._spec(job, f"{ask.key}-{position}", env, script)
                check_spec(spec)
                check_wishes(job.wishes)
                body = encode_spec(spec)
            except HqError as error:
                if job.line is None:
                    raise
                raise InputError(str(error), line=job.line) from None
            items.append(SubmitItem(spec.key, SignedSpec(body, self._signer.sign(body)), job.wishes))
        return Prepared(tuple(items), blobs, ask.is_dry_run)

    def _sealed(self, pairs: tuple[bytes, ...]) -> tuple[str, bytes]:
        """An environment, sealed: its digest and the sealed bytes. One submission after the other has the same, so the last is kept."""
        if self._last is None or self._last[0] != pairs:
            if any(b"\0" in pair for pair in pairs):
                raise InputError("a variable of the environment has a NUL byte")
            self._last = (pairs, *self._sealer.seal(b"\0".join(pairs)))
        return self._last[1:]

    def _spec(self, job: JobRequest, key: str, env: str, script: str) -> JobSpec:
        return JobSpec(
            instance=self._instance,
            user=self._user,
            key=key,
            name=job.name or default_name(job),
            argv=job.argv,
            is_shell=job.is_shell,
            shell=job.shell,
            script=script,
            env=env,
            cwd=job.cwd,
            umask=job.umask,
            stdin=job.stdin,
            stdout=job.stdout,
            stderr=job.stderr,
            logfile=job.logfile,
            indices=job.indices,
            slots=job.slots,
            memory=job.memory,
            time_limit=job.time_limit,
            grace=job.grace,
            resources=job.resources,
            output_limit=job.output_limit,
            output_action=job.output_action,
            is_rerunnable=bool(job.indices) if job.is_rerunnable is None else job.is_rerunnable,
            retries=job.retries,
            nice=job.nice,
            mode=job.mode,
            retry_on=job.retry_on,
            warn_signal=job.warn_signal,
            warn_before=job.warn_before,
        )


def default_name(job: JobRequest) -> str:
    """What a job is called that was given no name: the command without its directory."""
    if job.script is not None:
        return "script"
    words = job.argv[0].split(maxsplit=1) if job.argv and job.is_shell else job.argv
    return os.path.basename(words[0] if words else b"").decode(errors="replace")[:64] or "job"


def is_in_container(root: str = "/") -> bool:
    """Whether this looks like a container, where root is the only user there is and not the machine's."""
    for path in (".dockerenv", "run/.containerenv"):
        if os.path.exists(os.path.join(root, path)):
            return True
    for path, signs in (("proc/1/environ", (b"container=",)), ("proc/1/cgroup", (b"docker", b"kubepods", b"lxc", b"containerd", b"libpod"))):
        try:
            with open(os.path.join(root, path), "rb") as file:
                text = file.read(1 << 16)
        except OSError:
            continue
        if any(sign in text for sign in signs):
            return True
    try:
        with open(os.path.join(root, "proc/self/uid_map"), encoding="ascii") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


def root_refusal(uid: int, is_allowed: bool, root: str = "/") -> str | None:
    """Why a submission as root is refused; None if it is not."""
    if uid != 0 or is_allowed or is_in_container(root):
        return None
    return (
        "jobs are not run as root: submit as an ordinary user, or, if it must be, with --allow-root "
        "(for good: 'allow_root: true' in client.yaml)"
    )
