"""Spark's failures to start, as errors that say what to do."""

from __future__ import annotations

import logging
import re

from batchscore.errors import BatchscoreError, SetupError, UnavailableError, bounded
from batchscore.session.conf import IVY_FOLDER, is_local

_log = logging.getLogger(__name__)


def launch_error(lines: list[str]) -> BatchscoreError:
    """The error for a JVM that ended before it could be used, from what it printed."""
    text = "\n".join(lines)
    hint = f"give the jars by hand (spark.jars), or copy {IVY_FOLDER} from a machine that has them"
    if re.search(r"Server access error|UnknownHostException|ConnectException|timed out|download failed", text):
        unreachable = re.findall(r"Server access error at url \S+", text)[:3]
        return UnavailableError("Spark's jars could not be fetched", detail=unreachable, hint=f"try again, or {hint}")
    missing = sorted(set(re.findall(r"unresolved dependency: (\S+?):? not found", text)))
    if missing:
        return SetupError("Spark's jars were not found in any repository", found=", ".join(missing), hint=hint)
    found = readable(lines)
    return SetupError(
        "the JVM for Spark did not start", found=found, hint="`batchscore doctor` checks Java and the jars"
    )


def readable(lines: list[str]) -> str:
    """The lines that say something, without stack frames and log lines; bounded."""
    frame = re.compile(r"^\s*(at |\.\.\. \d+ more|WARNING: |Picked up |Setting default|To adjust)|^\d\d/\d\d/\d\d ")
    said = [line.strip() for line in lines if line.strip() and not frame.search(line)]
    return bounded(" | ".join(said[-3:])) or "nothing was printed"


def context_error(error: Exception, master: str) -> BatchscoreError:
    """The error for a SparkContext that the JVM refused to make."""
    java = getattr(error, "java_exception", None)
    message = readable(str(java.getMessage() if java is not None else error).splitlines())
    _log.debug("the Spark context failed", exc_info=error)
    if is_local(master) or re.search(r"ClassNotFound|must be at least|Could not parse|IllegalArgument", message):
        return SetupError("Spark did not start", found=message, hint="check spark.conf, then `batchscore doctor`")
    return UnavailableError(f"Spark did not start on {master}", found=message)
