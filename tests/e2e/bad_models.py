"""Models that misbehave as a line of Python says."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.conftest import Job

MODELS = """
import sys, time
import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

class Bad(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        rows = len(model_input)
        {body}

mlflow.pyfunc.save_model(
    sys.argv[1], python_model=Bad(),
    signature=ModelSignature(inputs=Schema([ColSpec("double", "amount")]), outputs=Schema([ColSpec("double")])),
    pip_requirements=["mlflow"],
)
"""


def bad_model(job: Job, body: str) -> tuple[str, ...]:
    """Flags that name a model whose ``predict`` runs ``body``, where ``rows`` is the number of rows it was given."""
    folder = job.folder / "bad_model"
    subprocess.run(
        [sys.executable, "-c", MODELS.format(body=body), folder], check=True, capture_output=True, timeout=120
    )
    return ("--model", str(folder), "--allow-path", str(folder))
