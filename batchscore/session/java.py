"""Whether the Java at hand can run Spark."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from batchscore.session.failures import readable

OLDEST_JAVA = 17
JAVA_WAIT_SECONDS = 30.0
# Spark's options need this module, which trimmed Java builds leave out.
_NEEDED_MODULE = "jdk.incubator.vector"
INSTALL_JAVA = "install a full JDK 17 or 21 and point JAVA_HOME at it, then run `batchscore doctor`"


def java_problem() -> str | None:
    """Why Spark cannot run on the Java of JAVA_HOME or PATH, or None where it can (takes 0.1 s)."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        return "Java is missing: JAVA_HOME is not set and there is no java on PATH"
    if not os.access(java, os.X_OK):
        return f"Java is missing: JAVA_HOME is {home}, which has no bin/java that can be run"
    code, text = _ask_java(java, "--add-modules", _NEEDED_MODULE)
    if code == 0:
        return _version_problem(java, text)
    code, text = _ask_java(java)
    problem = _version_problem(java, text) if code == 0 else f"{java} does not run: {readable(text.splitlines())}"
    return problem or f"{java} is a trimmed Java without the module {_NEEDED_MODULE}, which Spark needs"


def _ask_java(java: str, *options: str) -> tuple[int, str]:
    command = [java, *options, "-version"]
    try:
        answer = subprocess.run(  # noqa: S603  # the user's own Java, fixed arguments
            command, capture_output=True, text=True, errors="replace", timeout=JAVA_WAIT_SECONDS, check=False
        )
    except OSError as error:
        return 1, str(error)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {JAVA_WAIT_SECONDS:g} s"
    return answer.returncode, answer.stderr + answer.stdout


def _version_problem(java: str, text: str) -> str | None:
    major = java_major(text)
    if major is None:
        return f"{java} does not say its version: {readable(text.splitlines())}"
    if major < OLDEST_JAVA:
        return f"{java} is Java {major}; Spark needs {OLDEST_JAVA} or newer"
    return None


def java_major(text: str) -> int | None:
    """The major version in the output of ``java -version``.

    >>> java_major('openjdk version "17.0.15" 2025-04-15'), java_major('java version "1.8.0_402"')
    (17, 8)
    """
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return None if match is None else int(match.group(1))
