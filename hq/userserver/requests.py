"""What clients may ask: most is asked of hq-server in their name, some is answered here. No socket is known here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hq import VERSION
from hq.errors import HqError, InputError, RefusedError
from hq.kernel.clock import Now
from hq.kernel.identity import may_send
from hq.model.ids import parse_task_key
from hq.model.selection import Selection
from hq.model.states import LinkState, TaskState
from hq.model.user import Role
from hq.protocol.base import PROTOCOL, Message, Problem
from hq.protocol.jobs import (
    AuditQuery,
    GroupQuery,
    JobAct,
    JobActed,
    JobAsk,
    JobExplain,
    JobExplained,
    JobProgress,
    JobQuery,
    JobRows,
    JobShow,
    JobSubmitted,
    JobWatch,
    LogRead,
    SubmittedItem,
)  # fmt: skip
from hq.protocol.peers import (
    BookAsk,
    BookTold,
    HostCheck,
    HostChecked,
    HostQuery,
    LedgerAsk,
    LedgerTold,
    PeerAsk,
    PeerBye,
    PeerFacts,
    PeerShutdown,
)
from hq.userserver.asker import Asker
from hq.userserver.centres import ask_centres
from hq.userserver.submit import Prepared, root_refusal

if TYPE_CHECKING:
    from hq.userserver.server import UserServer

#: Submissions of more jobs than this are signed beside the loop.
MANY = 200
#: One that has given its ledger away waits so long to be asked for the next piece of its run book (seconds).
BOOK_PATIENCE = 30.0
_MOVED = "moved to another machine by its user"


def handle(server: UserServer, asker: Asker, message: Message) -> None:
    """Begin to answer a client's request; whatever goes wrong is an answer, too."""
    tag = message.__struct_config__.tag
    if not may_send(message, Role.CLIENT) or type(message) not in HANDLERS:
        server.log("security").warning("a client sent a %s, which it may not: ignored", tag)
        asker.answer(Problem(text=f"a command may not send {tag} to a user-server", exit_code=1))
        return
    try:
        HANDLERS[type(message)](server, asker, message)
    except HqError as error:
        asker.answer(problem_of(error))


def may_follow(message: Message) -> bool:
    """Whether a request is passed on while earlier ones of its connection are not answered: submissions, which go up in their order."""
    return isinstance(message, JobAsk) and len(message.jobs) <= MANY


def problem_of(error: BaseException) -> Problem:
    """An error as an answer."""
    if isinstance(error, HqError):
        return Problem(text=str(error), exit_code=error.exit_code)
    return Problem(text=f"the user-server failed: {type(error).__name__}: {error}")


def _forward(server: UserServer, asker: Asker, message: Message, *, is_repeatable: bool = True) -> None:
    server.upstream.ask(message, lambda answer, is_last: asker.answer(answer), is_repeatable=is_repeatable)


def _act(server: UserServer, asker: Asker, message: JobAct) -> None:
    def answered(answer: Message, is_last: bool) -> None:
        results = answer.results if isinstance(answer, JobActed) else ()
        done = [result.id for result in results if result.is_done]
        if done and "requeue" in (message.action, message.changes.get("as")):
            server.execs.ledger.granted(message.selection, done)
        elif results and message.action == "cancel":
            # also what is over: it may be over by this very request, whose first answer was lost on its way
            server.execs.ledger.cancelled(result.id for result in results)
        asker.answer(answer)

    # a signal or a requeue that is done twice is not the same as once
    server.upstream.ask(message, answered, is_repeatable=message.action not in ("signal", "requeue"))


def _watch(server: UserServer, asker: Asker, message: JobWatch) -> None:
    request = 0

    def answer(news: Message, is_last: bool) -> None:
        asker.answer(news, is_last=is_last)
        if is_last:
            server.watches.pop(request, None)
        if not is_last and asker.is_gone:
            server.upstream.drop(request)

    request = server.upstream.ask(message, answer, is_stream=True)
    if request:
        server.watches[request] = asker


def warn_watchers(server: UserServer) -> None:
    """Who waits is told, once, when nothing of his can start because no exec-server can be started."""
    server.watches_warned &= server.watches.keys()
    if len(server.watches_warned) == len(server.watches) or (trouble := server.execs.links.hopeless()) is None:
        return
    note = f"nothing of yours can start, for no exec-server can be started; on {trouble.host}: {trouble.reason}"
    for request in server.watches.keys() - server.watches_warned:
        server.watches[request].answer(JobProgress(jobs=(), is_done=False, note=note), is_last=False)
    server.watches_warned |= server.watches.keys()


def _submit(server: UserServer, asker: Asker, message: JobAsk) -> None:
    is_allowed = message.allow_root or server.allow_root
    refusal = root_refusal(server.uid, is_allowed)
    if refusal is not None:
        raise RefusedError(refusal)
    if server.uid == 0:
        server.execs.memory.permit_root()
    server.execs.links.nudge(server.now.boot)
    if len(message.jobs) <= MANY:
        _send(server, asker, server.preparer.prepare(message))
        return

    def prepared(value: Any, error: BaseException | None, now: Now) -> None:
        try:
            if error is not None:
                raise error
            _send(server, asker, value)
        except HqError as problem:
            asker.answer(problem_of(problem))

    server.background.run(prepared, lambda: server.preparer.prepare(message))


def _send(server: UserServer, asker: Asker, prepared: Prepared, *, is_again: bool = False) -> None:
    """Send signed jobs; contents that hq-server has already are left out, and sent after all if it then refuses."""
    message = prepared.message(set() if is_again else server.known_blobs)
    was_cut = len(message.blobs) < len(prepared.blobs)

    def answered(answer: Message, is_last: bool) -> None:
        if isinstance(answer, JobSubmitted):
            if not prepared.is_dry_run:
                server.remember_blobs(prepared.blobs)
                server.taken(prepared.items, prepared.blobs, answer)
        elif was_cut and isinstance(answer, Problem) and not answer.is_transient:
            server.known_blobs.clear()
            _send(server, asker, prepared, is_again=True)
            return
        elif isinstance(answer, Problem) and answer.is_transient and not prepared.is_dry_run:
            answer = _kept(server, prepared, answer)
        asker.answer(answer)

    server.upstream.ask(message, answered)


def _kept(server: UserServer, prepared: Prepared, problem: Problem) -> Message:
    """hq-server cannot take it now: it is kept here, and the user is told where and why."""
    if not server.spool.is_known:
        return problem
    try:
        path = server.spool.keep(prepared.message(set()), server.now)
    except (OSError, HqError) as error:
        text = f"{problem.text}; nor can it be kept on this machine ({error}): nothing was submitted"
        return msgspec.structs.replace(problem, text=text)
    items = tuple(SubmittedItem(item.key, 0, 0) for item in prepared.items)
    return JobSubmitted(items=items, kept=f"kept in {path} on {os.uname().nodename}, and sent when hq-server is back: {problem.text}")


def _explain(server: UserServer, asker: Asker, message: JobExplain) -> None:
    def answered(answer: Message, is_last: bool) -> None:
        if not isinstance(answer, JobExplained):
            asker.answer(answer)
            return
        explained = answer

        def looked(rows: Message, is_last: bool) -> None:
            # links and logouts are no reason for what is over
            is_over = isinstance(rows, JobRows) and all(row.state == TaskState.FINISHED.value for row in rows.rows)
            own = [] if is_over else own_sentences(server)
            asker.answer(msgspec.structs.replace(explained, sentences=(*explained.sentences, *own)))

        server.upstream.ask(JobQuery(selection=Selection(tasks=(parse_task_key(message.task),)), by_task="_" in message.task, limit=1), looked)

    parse_task_key(message.task)
    server.upstream.ask(message, answered)


def own_sentences(server: UserServer) -> list[str]:
    """What this user-server knows about why something waits: links that do not work, whether it outlives a logout."""
    sentences = []
    if server.execs.ledger.trouble:
        sentences.append(f"Your user-server relays no start, for its ledger cannot be written ({server.execs.ledger.trouble}): make room where its files are.")
    for host, link in server.execs.links:
        again = link.try_at - server.now.boot
        then = f" (tried again in {again:.0f} s)" if again > 0 and not link.is_dialling else ""
        if link.state is LinkState.FAILED:
            sentences.append(f"Your exec-server on {host} cannot be started: {link.reason}{then}")
        elif link.state is LinkState.SUSPECT:
            sentences.append(f"Your exec-server on {host} does not answer: {link.reason}{then}")
        elif link.state is LinkState.STARTING:
            sentences.append(f"Your exec-server on {host} is being started{f'; {link.note}' if link.note else ''}.")
    sentences.append(server.keepalive_sentence())
    return sentences


def _facts(server: UserServer, asker: Asker, message: PeerAsk) -> None:
    base: dict[str, Any] = {"daemon": "hq-user-server", "instance": server.instance, "version": VERSION}
    if message.what == "ping":
        asker.answer(PeerFacts(facts={**base, "answer": "pong"}))
    elif message.what == "info":
        asker.answer(PeerFacts(facts={
            **base, "protocol": PROTOCOL, "user": server.user, "machine": os.uname().nodename, "address": server.address, "pid": os.getpid(),
            "etc": server.etc, "up_seconds": round(server.now.boot - server.started.boot, 1),
            "server": server.server_address, "server_state": "up" if server.upstream.is_up else server.upstream.away_text(),
            "keepalive": server.keepalive_sentence(),
        }))  # fmt: skip
    elif message.what == "status":
        facts = {
            **base, "server_state": "up" if server.upstream.is_up else server.upstream.away_text(),
            "clients": len(server.door), "requests": len(server.upstream.requests), "spool": server.spool.facts(), **run_facts(server),
            **{f"host {host}": link.state.value + (f": {link.reason}" if link.reason else "") for host, link in server.execs.links},
        }  # fmt: skip

        def told(answer: Message, is_last: bool) -> None:
            ours = {name: value for name, value in answer.facts.items() if name not in base} if isinstance(answer, PeerFacts) else {}
            asker.answer(PeerFacts(facts={**facts, **ours}))

        def centres_told(centres: dict[str, str]) -> None:
            facts.update(centres)
            if server.upstream.is_up:
                server.upstream.ask(PeerAsk(what="status"), told)
            else:
                asker.answer(PeerFacts(facts=facts))

        ask_centres(server, centres_told)
    else:
        raise InputError(f"'{message.what[:40]}' cannot be asked: ping, info or status")


def run_facts(server: UserServer) -> dict[str, str | int]:
    """How many exec-servers there are, by state of their links, and what is known of runs."""
    states: dict[str, int] = {}
    for _, link in server.execs.links:
        states[link.state.value] = states.get(link.state.value, 0) + 1
    return {
        "exec_servers": ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none",
        "runs": len(server.execs.live),
        "orders_waiting": len(server.execs.waiting),
    }


def _check(server: UserServer, asker: Asker, message: HostCheck) -> None:
    if message.host not in server.execs.hosts:
        if not server.upstream.is_up:
            # the answer to a question that changes nothing tells when the hosts are known, or why not
            def known(answer: Message, is_last: bool) -> None:
                if isinstance(answer, Problem):
                    asker.answer(answer)
                elif message.host in server.execs.hosts:
                    _check(server, asker, message)
                else:
                    asker.answer(Problem(text=f"there is no host {message.host} in the cluster", exit_code=2))

            server.upstream.ask(HostQuery(), known)
            return
        names = ", ".join(sorted(server.execs.hosts)[:20])
        raise InputError(f"there is no host '{message.host[:80]}' in the cluster; there are {names or 'none'}")

    def done(result: Any) -> None:
        asker.answer(problem_of(result) if isinstance(result, HqError) else HostChecked(host=message.host, steps=tuple(result)))

    server.execs.check(message.host, done)


def _shut_down(server: UserServer, asker: Asker, message: PeerShutdown) -> None:
    asker.answer(PeerBye(reason="shut down by its user"))
    server.shut_down("shut down by its user", and_hosts=message.and_hosts)


def _tell_ledger(server: UserServer, asker: Asker, message: LedgerAsk) -> None:
    try:
        data = server.execs.ledger.read()
    except OSError as error:
        raise RefusedError(f"the ledger cannot be read: {error}") from None
    # from now on the other one decides what may start
    server.execs.ledger.retire()
    asker.answer(LedgerTold(data=data, has_book=True))
    server.shut_down(_MOVED, after=BOOK_PATIENCE if message.with_book else 1.0)


def _tell_book(server: UserServer, asker: Asker, message: BookAsk) -> None:
    if not server.execs.ledger.is_retired:
        raise InputError("a run book moves after its ledger")
    try:
        data, is_last = server.execs.ledger.book.piece(message.offset)
    except OSError as error:
        raise RefusedError(f"the run book cannot be read: {error}") from None
    asker.answer(BookTold(data=data, is_last=is_last))
    server.shut_down(_MOVED, after=1.0 if is_last else BOOK_PATIENCE)


def _read_log(server: UserServer, asker: Asker, message: LogRead) -> None:
    server.logs.begin(asker, message, server.now)


HANDLERS: dict[type[Message], Callable[[UserServer, Asker, Any], None]] = {
    JobAsk: _submit,
    JobAct: _act,
    JobQuery: _forward,
    JobShow: _forward,
    JobExplain: _explain,
    JobWatch: _watch,
    GroupQuery: _forward,
    AuditQuery: _forward,
    HostQuery: _forward,
    HostCheck: _check,
    LogRead: _read_log,
    PeerAsk: _facts,
    PeerShutdown: _shut_down,
    LedgerAsk: _tell_ledger,
    BookAsk: _tell_book,
}
