"""`make chaos SEED=1 FAULTS=100 TASKS=5000`: the proof that nothing is lost and nothing runs twice.

Two users submit tasks that write their own start and end into a ledger outside hq, while daemons, hosts, disk and database are
killed, stopped, cut off and filled at moments that the seed decides. Then everything is let be until it is at rest, and ledger
and database are compared, task by task (`tests.chaos.judge` says what the words of the closing line mean). Exit code 0 only for
`lost=0 double=0 wrong=0 stuck=0`; otherwise the logs of all daemons stay in a folder that is named. Needs root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymysql

from hq.model.indexset import parse_array
from tests.chaos.inject import Injector
from tests.chaos.judge import PLAIN, Decision, Findings, Job, Record, judge, read_ledger
from tests.chaos.plan import KINDS, Plan, Submission, make_plan
from tests.chaos.stage import DATABASE, HOSTS, LEASE, USERS, Stage, uptime, wait_until
from tests.chaos.troubles import Troubles

#: Nothing has moved for so long (seconds): it will not. Longer than a lease and its margin, after which a host is given up.
AT_REST = 90.0
#: So long a host that was cut off is listened to again before the end (seconds).
HEARD_AGAIN = 8.0
#: What the owners say of tasks on a host that is cut off for ever, in turn.
VERDICTS = ("lost", "requeue", "ok", "failed")
_LIVE = "select job, idx, attempt, user, state, host from task where state <> 'finished'"
SHOWN = 40


class Run:
    """One run of a plan on a stage."""

    def __init__(self, stage: Stage, plan: Plan, log: Path) -> None:
        self.stage = stage
        self.plan = plan
        self.log = log
        self.injector = Injector(stage, self._note)
        self.acknowledged: dict[int, str] = {}  # job → name of its submission
        self.kept: set[str] = set()  # acknowledged without an id: kept until hq-server is there
        self.refused: dict[str, int] = {}
        self.decisions: dict[tuple[int, int], Decision] = {}
        self.tasks = 0
        self.evidence: dict[str, Sequence[object]] = {}  # what was compared with the ledger

    def _note(self, text: str) -> None:
        with self.log.open("a") as stream:
            stream.write(text + "\n")

    def carry_out(self) -> None:
        """Submit and injure, then let it settle."""
        users = [threading.Thread(target=self._submit_all, args=(user,), daemon=True) for user in USERS]
        for each in users:
            each.start()
        self.injector.run(self.plan.faults)
        self._note(f"{uptime():.2f} everything is well again")
        for each in users:
            each.join()
        self._settle()

    def _submit_all(self, user: str) -> None:
        begin = time.monotonic()
        for submission in self.plan.submissions:
            if submission.user == user:
                wait_until(begin + submission.at, self.stage)
                self._submit(submission)

    def _submit(self, submission: Submission) -> None:
        """As a person would: again and again, under another name, until it is taken."""
        for trial in range(50):
            name = f"{submission.name}.{trial}"
            words = ["-q", "--retries", str(submission.retries), "--rerunnable" if submission.is_rerunnable else "--no-rerunnable"]
            command = [str(self.stage.program), str(self.stage.ledger), submission.kind]
            stdin = b""
            if submission.is_array:
                words += ["--name", name, "--array", f"1-{submission.tasks}", *command]
            else:
                words += ["--jobs-file", "-"]
                lines = [json.dumps({"command": " ".join(command), "name": name}) for _ in range(submission.tasks)]
                stdin = "\n".join(lines).encode()
            try:
                done = self.stage.site.run(submission.user, "hq-submit", *words, stdin=stdin, timeout=120)
                text, is_taken = done.out + done.err, done.rc == 0
            except subprocess.TimeoutExpired:
                done, text, is_taken = None, "hq-submit hung for 120 s", False
            self._note(f"{uptime():.2f} submitted {name} of {submission.user}, {submission.tasks} tasks: {text.strip()!r}")
            if is_taken and done is not None:
                ids = [int(word) for word in done.out.split() if word.isdigit() and int(word)]
                self.acknowledged.update(dict.fromkeys(ids, name))
                if len(ids) != (1 if submission.is_array else submission.tasks):
                    self.kept.add(name)
                return
            self.refused[text.strip()[-160:]] = self.refused.get(text.strip()[-160:], 0) + 1
            self.stage.pause(1.0)

    def _settle(self) -> None:
        last, since = "", time.monotonic()
        while time.monotonic() - since < AT_REST:
            self.injector.look()
            self.stage.pause(0.5)
            try:
                live = self._rows("select count(*) from job")
                state = str([live, self._rows("select count(*) from task_history"), self._rows("select count(*), max(since) from task")])
                if live != [(0,)] and self.injector.cut_off:
                    self._ask_owners()
            except (OSError, pymysql.Error):
                continue
            if live == [(0,)]:
                break
            if state != last:
                last, since = state, time.monotonic()
        else:
            self._ask_why()
        if self.injector.cut_off:
            self.injector.join_for_good()
            self.stage.pause(HEARD_AGAIN)

    def _ask_why(self) -> None:
        """Note what hq itself says of what has not ended, of one task a user and state."""
        self._note(self.stage.site.admin("lscluster").out)
        for job, index, _, user, state, _ in {(row[3], row[4]): row for row in self._rows(_LIVE)}.values():
            name = f"{job}" if index == PLAIN else f"{job}_{index}"
            self._note(f"{uptime():.2f} {name} of {user}, {state}: {self.stage.site.client(user, 'why', name).out}")
        for (user,) in self._rows("select distinct user from job"):
            self._note(f"{uptime():.2f} {user}: {self.stage.site.client(user, 'why', 'last').out}")

    def _ask_owners(self) -> None:
        """When all that is left is on a host that will not be heard again, its owners say what became of it."""
        left = self._rows(_LIVE)
        if any(state not in ("host_lost", "starting") or host not in self.injector.cut_off for *_, state, host in left):
            return
        for number, (job, index, attempt, user, _, _) in enumerate(left):
            verdict = VERDICTS[number % len(VERDICTS)]
            name = f"{job}" if index == PLAIN else f"{job}_{index}"
            done = self.stage.site.client(user, "resolve", name, "--as", verdict)
            self._note(f"{uptime():.2f} {user} says {name} is {verdict}: {done.rc} {(done.out + done.err).strip()!r}")
            if done.rc == 0:
                self.decisions[job, index] = Decision(attempt, verdict)

    def compare(self) -> Findings:
        """What came of it."""
        rows = self._rows
        columns = "id, user, name, indices, submitted"
        live = rows(f"select {columns} from job")
        ended = rows(f"select {columns} from job_history")
        by_name = {f"{each.name}": each for each in self.plan.submissions}
        jobs = []
        for id, user, name, indices, submitted in [*live, *ended]:
            wish = by_name[name.rpartition(".")[0]]
            numbers = tuple(parse_array(indices)[0]) if indices else (PLAIN,)
            assert len(numbers) == (wish.tasks if wish.is_array else 1), (id, name, indices)
            jobs.append(Job(id, user, numbers, wish.retries, wish.is_rerunnable, id in self.acknowledged, _moment(submitted)))
        known = frozenset(job.id for job in jobs)
        jobs += [Job(id, name, (), 0, False) for id, name in self.acknowledged.items() if id not in known]
        troubles = Troubles(self.injector.troubles, LEASE)
        ledger = read_ledger(self.stage.ledger.read_text())
        records = self._records()
        self.evidence = {"jobs": jobs, "records": records, "troubles": self.injector.troubles, "decisions": list(self.decisions.items())}
        found = judge(jobs, records, frozenset(row[0] for row in live), known, ledger, troubles, self.decisions)
        self.tasks = sum(len(job.indices) for job in jobs)
        counts: dict[str, int] = {}
        for _, _, name, _, _ in [*live, *ended]:
            counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            wish = by_name[name.rpartition(".")[0]]
            if count > (1 if wish.is_array else wish.tasks):
                found.double.append(f"submission {name} made {count} jobs")
            elif name in self.kept and count < (1 if wish.is_array else wish.tasks):
                found.lost.append(f"submission {name} was accepted, and made {count} jobs")
        found.wrong += [f"an error of hq's own in {text}" for text in self.stage.own_errors()]
        found.lost += [f"submission {name} was accepted, and is not there" for name in self.kept if name not in counts]
        return found

    def _records(self) -> list[Record]:
        """What the database says of all tasks."""
        rows = self._rows("select job, idx, attempt, state, outcome, exit_code, host, reason, ended from task")
        rows += self._rows("select job, idx, attempt, 'finished', outcome, exit_code, host, reason, ended from task_history")
        return [Record(*row[:8], _moment(row[8])) for row in rows]

    def _rows(self, statement: str) -> list[Any]:
        return self.stage.database.execute(statement, database=DATABASE)


def _moment(value: datetime | None) -> float:
    """A moment of the database (UTC) on the clock of the ledger; none is later than all."""
    return value.replace(tzinfo=UTC).timestamp() - time.time() + uptime() if value is not None else float("inf")


def main(argv: list[str] | None = None) -> int:
    """Run it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--only", action="append", default=[], choices=list(KINDS), help="only faults of this kind; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the logs in any case")
    options = parser.parse_args(argv)
    plan = make_plan(options.seed, options.faults, options.tasks, HOSTS, USERS, tuple(options.only))
    folder = Path(tempfile.mkdtemp(prefix=f"hq-chaos-seed{options.seed}-", dir="/var/tmp"))
    print(f"seed {options.seed}: {len(plan.faults)} faults in {plan.seconds:.0f} s, {options.tasks} tasks in {len(plan.submissions)} submissions", flush=True)
    begin = time.monotonic()
    with Stage(lambda text: print(text, flush=True)) as stage:
        run = Run(stage, plan, folder / "injected")
        try:
            run.carry_out()
            found = run.compare()
        except BaseException:
            stage.save(folder)
            print(f"it broke off; logs of all daemons: {folder}", flush=True)
            raise
        _print_report(run, found, time.monotonic() - begin)
        if not found.is_good or options.keep:
            for name in ("lost", "double", "wrong", "stuck", "unknown"):
                (folder / name).write_text("\n".join(getattr(found, name)) + "\n")
            for name, things in run.evidence.items():
                (folder / name).write_text("\n".join(map(repr, things)) + "\n")
            stage.save(folder)
            print(f"logs of all daemons: {folder}")
        else:
            (folder / "injected").unlink()
            folder.rmdir()
    print(found.line, flush=True)
    return 0 if found.is_good else 1


def _print_report(run: Run, found: Findings, seconds: float) -> None:
    print(f"injected: {', '.join(f'{count} × {kind}' for kind, count in sorted(run.injector.done.items()))}")
    print(f"brought back: {', '.join(f'{count} × {what}' for what, count in sorted(run.stage.revived.items())) or 'nothing'}")
    print(f"refused submissions, sent again: {sum(run.refused.values())}")
    for text, count in sorted(run.refused.items()):
        print(f"  {count} × {text}")
    print(
        f"{run.tasks} tasks in {seconds:.0f} s; {found.rerun} attempts of rerunnable tasks were repeated because a host was away or died; "
        f"{found.decided} went as their owner said; {found.full} had no room for their output"
    )
    for name in ("lost", "double", "wrong", "stuck", "unknown"):
        texts = getattr(found, name)
        for text in texts[:SHOWN]:
            print(f"  {name}: {text}")
        if len(texts) > SHOWN:
            print(f"  … and {len(texts) - SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
