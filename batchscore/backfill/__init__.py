"""The same job over a range of dates, oldest first: one plan for all of them, then one run for each commit.

Nothing but the prediction table remembers how far a backfill came. A date that is published is live, so whatever ends
a backfill, the same command goes on where it ended.
"""

from batchscore.backfill.course import BackfillInterrupted, carry_out
from batchscore.backfill.preparing import Group, Prepared, only, prepare

__all__ = ["BackfillInterrupted", "Group", "Prepared", "carry_out", "only", "prepare"]
