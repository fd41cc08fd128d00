"""The Python environment that a model asks for, made once for each host and model."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import ModelError, SetupError, bounded
from batchscore.models.mlmodel import python_version, read_mlmodel, requirements_of

# What the child process needs beside the model's own requirements; MLflow brings them, mlflow-skinny does not.
CHILD_REQUIREMENTS = ("pyarrow", "numpy", "pandas", "pyyaml", "threadpoolctl")
OLDEST_PYTHON = (3, 10)
RESTORE_SECONDS = 1_800.0
LAYOUT = "1"  # raised when an environment made earlier no longer serves
_READY = ".ready"


def restored(folder: str, digest: str) -> Path:
    """The interpreter of an environment with the model's requirements; made when this host has none yet.

    The environment depends on the requirements and the Python version alone, so versions of a model share it.
    ``UV_OFFLINE``, ``UV_INDEX_URL`` and the like count as for uv itself.

    Args:
        folder: the model's folder.
        digest: of the model, for messages.

    Returns:
        Path of the interpreter.

    Raises:
        SetupError: uv is missing, or could not make the environment: its own words are quoted.
        ModelError: the model records no requirements, or a Python that is too old.
    """
    requirements = requirements_of(Path(folder))
    if not requirements:
        raise ModelError(
            "the model records no requirements, so its environment cannot be restored",
            found=f"no requirements.txt in the model {digest[:12]}",
            hint="log the model with pip_requirements, or set model.environment to local",
        )
    python = _python(folder)
    facts = "\n".join([LAYOUT, python, platform.machine(), sysconfig.get_platform(), *requirements])
    home = _cache() / hashlib.sha256(facts.encode()).hexdigest()[:32]
    interpreter = home / "bin" / "python"
    with _locked(home):
        if not (home / _READY).is_file():
            shutil.rmtree(home, ignore_errors=True)
            _make(home, python, Path(folder) / "requirements.txt")
            (home / _READY).touch()
    return interpreter


def _python(folder: str) -> str:
    """The version to ask uv for: the model's own, up to the minor number, which is what wheels depend on."""
    recorded = python_version(read_mlmodel(Path(folder)))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = ".".join(recorded.split(".")[:2]) or running
    if tuple(int(part) for part in version.split(".")) < OLDEST_PYTHON:
        raise ModelError(
            f"the model was logged with Python {recorded}, in which batchscore's own code does not run",
            allowed=(f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer",),
            hint="log it again with a newer Python, or set model.environment to local",
        )
    return sys.executable if version == running else version


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    candidates = [Path(home)] if home else [Path.home() / ".cache", Path(tempfile.gettempdir()) / f"uid-{os.getuid()}"]
    for candidate in candidates:
        cache = candidate / "batchscore" / "environments"
        with contextlib.suppress(OSError):
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(cache, os.W_OK):
                return cache
    raise SetupError(
        "there is no folder to make the model's environment in", found=candidates[0], hint="set XDG_CACHE_HOME"
    )


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One process of this host at a time; the lock goes with the process that holds it."""
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _uv() -> str:
    try:
        from uv import find_uv_bin  # noqa: PLC0415  # optional: pip install batchscore[environments]

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise SetupError(
            "uv is missing, which makes the model's environment", hint="pip install uv, on every executor's machine"
        )
    return found


def _make(home: Path, python: str, requirements: Path) -> None:
    uv = _uv()
    _run([uv, "venv", "--quiet", "--python", python, str(home)], home)
    interpreter = str(home / "bin" / "python")
    # Made once, started often: without bytecode, each start would compile what it imports where it may not keep it.
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", interpreter]
    _run([*install, "--requirements", str(requirements), *CHILD_REQUIREMENTS], home)


def _run(command: list[str], home: Path) -> None:
    # A venv or conda environment that is active here must not become uv's target.
    inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    try:
        done = subprocess.run(  # noqa: S603  # uv, with paths of our own
            command, env=inherited, capture_output=True, text=True, timeout=RESTORE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(home, ignore_errors=True)
        raise SetupError("the model's environment could not be made", found=error) from error
    if done.returncode:
        shutil.rmtree(home, ignore_errors=True)
        raise SetupError(
            "the model's environment could not be made",
            found=f"{' '.join(command[1:3])} ended with exit code {done.returncode}",
            detail=[bounded(line, 300) for line in done.stderr.strip().splitlines()[-8:]],
            hint="check that the packages of the model's requirements.txt can be had from here",
        )
