"""Where logs and warnings go: stderr, and only what a user can act on unless ``--verbose``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from typing import Any

from batchscore.redaction import redact

# These announce their own progress at INFO or warn about what batchscore says in its own words.
_CHATTY = ("mlflow", "alembic", "py4j", "great_expectations", "sqlalchemy")


def stderr_is_stdout() -> bool:
    """Whether this process was started by spark-submit, which sends a script's stderr to its own stdout."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def set_up_logs(*, verbose: bool, as_json: bool = False) -> None:
    """Sends logs to stderr: all from INFO on when ``verbose``, else warnings of batchscore and errors of others."""
    logging.setLogRecordFactory(_masked_record)  # for every logger and handler, those of libraries included
    logging.captureWarnings(verbose)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s",
        force=True,
    )
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


def _masked_record(*arguments: Any, **named: Any) -> logging.LogRecord:  # noqa: ANN401  # logging's own signature
    """A log record without secrets in text and stack trace: libraries print URIs, Spark its settings."""
    record = logging.LogRecord(*arguments, **named)
    with contextlib.suppress(TypeError, ValueError, KeyError):  # logging itself reports what cannot be formatted
        record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    return record
