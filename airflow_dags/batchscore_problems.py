"""Shows settings files that cannot be scheduled as an import error of this file.

Airflow stops every DAG of a file that has an import error, so the DAGs of the good files live in another one,
`batchscore_dags.py`.
"""

import sys
from pathlib import Path

# Airflow puts a bundle's folder on the path, but no folder below it, nor any for `list-import-errors --local`.
sys.path.append(str(Path(__file__).resolve().parent))

from batchscore_jobs import conf_dir, scheduled_jobs

problems = scheduled_jobs(conf_dir())[1]
if problems:
    raise ImportError("no DAG is made of these settings files:\n" + "\n".join(problems))
