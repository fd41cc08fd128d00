"""A process that is bound to some cores uses no others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from batchscore import session
from batchscore.processors import usable_cores
from batchscore.runners import LocalRunner
print(usable_cores(), session.cores("local[*]", {}), session.cores("local[3]", {}), LocalRunner()._workers)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processes are bound to cores here")
def test_a_process_that_is_bound_to_a_core_counts_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1", "1", "3", "1"]
