"""The record of all runs, in SQLite. The only code that opens the database; only the host writes it.

`docs/design/store.md` has the rules. Importing this package imports sqlmodel.
"""

from atlas.store.database import home_from_environment
from atlas.store.experiments import ExperimentRecord, Membership
from atlas.store.models import EventRecord, RunRecord, SampleRecord
from atlas.store.reindex import enqueue_arguments, reindex
from atlas.store.states import AT_REST, ENDED, RESUMABLE, STATES
from atlas.store.store import StaleFence, Store

__all__ = [
    "AT_REST",
    "ENDED",
    "RESUMABLE",
    "STATES",
    "EventRecord",
    "ExperimentRecord",
    "Membership",
    "RunRecord",
    "SampleRecord",
    "StaleFence",
    "Store",
    "enqueue_arguments",
    "home_from_environment",
    "reindex",
]
