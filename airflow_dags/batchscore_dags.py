"""One Airflow DAG for each settings file that has a `schedule`: see docs/airflow.md.

A file that cannot be scheduled has no DAG here; `batchscore_problems.py` shows it as an import error.
"""

import sys
from pathlib import Path

from airflow.sdk import DAG

# Airflow puts a bundle's folder on the path, but no folder below it, nor any for `list-import-errors --local`.
sys.path.append(str(Path(__file__).resolve().parent))

from batchscore_jobs import ScheduledJob, command, conf_dir, scheduled_jobs
from batchscore_operator import BatchscoreRun


def build(job: ScheduledJob) -> None:
    """Makes the DAG of a job; the `with` block registers it with Airflow."""
    with DAG(
        dag_id=job.dag_id,
        description=f"batchscore run --config {job.settings}",
        schedule=job.timetable,
        start_date=job.start_date,
        # Past dates of a table without partitions would be the same run again and again.
        catchup=job.start_date is not None and job.partition_column is not None,
        max_active_runs=job.max_active_runs,
        tags=["batchscore"],
    ):
        BatchscoreRun(
            task_id="score",
            settings=job.settings,
            partition_column=job.partition_column,
            command=command(),
            retries=job.retries,
            retry_delay=job.retry_delay,
            retry_exponential_backoff=2,
        )


for scheduled in scheduled_jobs(conf_dir())[0]:
    build(scheduled)
