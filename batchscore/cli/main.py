"""From ``sys.argv`` to an exit code: the one place where errors become text."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from typer.exceptions import Abort, TyperException
from typer.main import get_command

from batchscore.cli.app import app
from batchscore.cli.interrupts import AnsweredError, Interruption
from batchscore.cli.logs import stderr_is_stdout
from batchscore.errors import BatchscoreError, SettingsError, bounded
from batchscore.redaction import learn_environment, redact

EXIT_BUG = 1
GC_OBJECTS = 100_000
EXIT_INTERRUPTED = 130


class BugError(BatchscoreError):
    """Something that batchscore did not foresee; only its text and exit code are used."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits with its code.

    Args:
        arguments: without the program's name; ``sys.argv[1:]`` when None.

    Raises:
        SystemExit: always.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    learn_environment(os.environ)
    interruption = Interruption()
    interruption.watch()
    try:
        code = _run(given, interruption)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BUG
    sys.exit(code)


def script() -> NoReturn:
    """The command as a process of its own: :func:`main`, and the process ends without taking Python apart.

    What is loaded by then (MLflow, Great Expectations, Spark) takes a second to take apart, for nothing.
    """
    # NumPy's BLAS starts a thread a core when it is imported, and these spin for 0.1 s of a core each time; nothing
    # here multiplies matrices, and workers have a core each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Python looks for cycles after every 700 new objects, among all that imports left: up to a third of their time.
    gc.set_threshold(GC_OBJECTS)
    try:
        main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0
    atexit._run_exitfuncs()  # closes what libraries hold open; there is no public name for it
    with contextlib.suppress(BrokenPipeError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(given: list[str], interruption: Interruption) -> int:
    try:
        result = get_command(app).main(given, prog_name="batchscore", standalone_mode=False)
    except TyperException as error:
        return _report(_usage_error(error), given)
    except BatchscoreError as error:
        return _report(error, given)
    except (KeyboardInterrupt, Abort):
        return _interrupted(given, interruption)
    except AnsweredError:
        return _interrupted([], interruption)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # the last resort: a bug must not look like an answer
        # An interruption that some library turned into an error of its own is still one.
        return _interrupted(given, interruption) if interruption.received else _report(_unforeseen(error), given)
    code = result if isinstance(result, int) else 0
    return _interrupted(given, interruption) if code == EXIT_INTERRUPTED else code


def _usage_error(error: TyperException) -> SettingsError:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "batchscore"
    return SettingsError(message[:1].lower() + message[1:], hint=f"{command} --help")


def _unforeseen(error: Exception) -> BatchscoreError:
    from batchscore.arrow.reach import storage_failure  # noqa: PLC0415  # not for --help

    return storage_failure(error) or _bug(error)


def _bug(error: Exception) -> BatchscoreError:
    return BugError(
        f"unforeseen {type(error).__name__}: {bounded(error)}",
        hint="this is a bug in batchscore: please report it with the output of the same command and --verbose",
    )


def _report(error: BatchscoreError, given: list[str]) -> int:
    if "--verbose" in given:
        print(redact("".join(traceback.format_exception(sys.exception()))), file=sys.stderr)  # noqa: T201  # asked for
    if "--json" in given:
        print(json.dumps(error.as_dict(), indent=2))  # noqa: T201  # the answer of a command
    if "--json" not in given or not stderr_is_stdout():
        print(redact(f"error: {error}"), file=sys.stderr)  # noqa: T201  # the answer of a command
    return error.exit_code


def _interrupted(given: list[str], interruption: Interruption) -> int:
    interruption.settle()
    if "--json" in given:
        print(json.dumps({"error": "Interrupted", "exit_code": EXIT_INTERRUPTED}))  # noqa: T201  # the answer
    print("interrupted", file=sys.stderr)  # noqa: T201  # the answer of a command
    return EXIT_INTERRUPTED
