"""Where logs and warnings go: stderr, and only what a user can act on unless ``--verbose``."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from batchscore.errors import without_secrets

# These announce their own progress at INFO or warn about what batchscore says in its own words.
_CHATTY = ("mlflow", "alembic", "py4j", "great_expectations", "sqlalchemy")


class _WithoutSecrets(logging.Formatter):
    """What another formatter makes of a record, traceback included, less what errors do not tell either."""

    def __init__(self, other: logging.Formatter | None) -> None:
        super().__init__()
        self._other = other or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(self._other.format(record))


def stderr_is_stdout() -> bool:
    """Whether this process was started by spark-submit, which sends a script's stderr to its own stdout."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def set_up_logs(*, verbose: bool, as_json: bool = False) -> None:
    """Sends logs to stderr: all from INFO on when ``verbose``, else warnings of batchscore and errors of others."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s",
        force=True,
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_WithoutSecrets(handler.formatter))
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # its INFO is hundreds of lines of its own
    if verbose:
        return
    level = logging.CRITICAL if as_json and stderr_is_stdout() else logging.WARNING
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)  # some libraries set their own loggers to INFO
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # mlflow sets its own level when imported
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # A warning of a dependency is the developer's, who sees it as an error in the tests.
    warnings.filterwarnings("ignore")
