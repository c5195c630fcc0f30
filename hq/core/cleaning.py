"""What may go from the state database. The core says what is needed; which rows that leaves over, the database finds."""

from __future__ import annotations

from hq.core.events import CleaningDue
from hq.core.state import State
from hq.model.changes import Cleaning
from hq.model.restored import LAST_ID


def clean(state: State, event: CleaningDue) -> None:
    """Order it for the commit of this step: what the same step takes in is needed, and what comes later is written later."""
    specs = [(job.record.user, job.record.spec) for job in state.jobs.values()]
    needed = frozenset((digest, user) for user, spec in specs for digest in (spec.env, spec.script) if digest)
    state.changes.cleaning = Cleaning(needed, event.before)
    if event.before is not None:
        # job ids go on above it, should all rows that bear them be gone
        state.changes.settings[LAST_ID] = str(state.last_id)
