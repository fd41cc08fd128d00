"""The kernels as a shared library, which the driver builds and workers load.

The trees are not compiled: they are data that two small kernels go through. That is faster than a tree of C
statements, most of all for large ensembles, whose code does not fit a core's caches and takes minutes to optimise.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from batchscore.errors import SetupError

SOURCES = ("walk.c", "masks.c")
HEADERS = ("walk_rows.h", "masks_level.h", "masks_rows.h", "masks_avx512.h")
COMPILERS = ("cc", "gcc", "clang")
# No -march: the library runs on any machine of its architecture, and looks for wide vectors itself. Contraction to
# fused multiply-add would change bits.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off", "-s")
COMPILE_SECONDS = 120
HINT = "install a C compiler (cc, gcc or clang) or name one in the environment variable CC, or choose another engine"


def compiler() -> list[str] | None:
    """The C compiler's command, or None where there is none."""
    given = shlex.split(os.environ.get("CC", ""))
    if given:
        return given if shutil.which(given[0]) else None
    return next(([name] for name in COMPILERS if shutil.which(name)), None)


def compiler_version() -> str:
    """The compiler's first line about itself, '' where there is none."""
    command = compiler()
    if command is None:
        return ""
    found = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)  # noqa: S603  # CC
    return found.stdout.partition("\n")[0].strip()


def build(path: Path) -> None:
    """Compiles the kernels.

    Args:
        path: where the library goes.

    Raises:
        SetupError: no compiler, or it fails.
    """
    command = compiler()
    if command is None:
        raise SetupError("engine compiled needs a C compiler", found=os.environ.get("CC") or "none", hint=HINT)
    with tempfile.TemporaryDirectory() as folder:  # so that no path of this machine gets into the library
        for name in (*SOURCES, *HEADERS):
            shutil.copyfile(Path(__file__).with_name(name), Path(folder) / name)
        arguments = [*command, *FLAGS, *SOURCES, "-o", "trees.so", "-lm"]
        try:
            found = subprocess.run(  # noqa: S603  # the user's compiler, fixed arguments
                arguments, cwd=folder, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupError("the C compiler does not run", found=error, hint=HINT) from error
        built = Path(folder) / "trees.so"
        if found.returncode or not built.exists():
            lines = found.stderr.strip().splitlines()[-3:]
            raise SetupError(
                f"the C compiler failed with exit code {found.returncode}",
                found=shlex.join(arguments),
                detail=lines,
                hint=HINT,
            )
        shutil.copyfile(built, path)


def this_platform() -> dict[str, str]:
    """What a library built here needs: system, machine and C library."""
    name, version = platform.libc_ver()
    return {"system": sys.platform, "machine": platform.machine(), "libc": name, "libc_version": version}


def check_platform(built: dict[str, str]) -> None:
    """Compares the platform of a library with this one.

    Raises:
        SetupError: it cannot run here.
    """
    here = this_platform()
    same = all(built.get(key) == here[key] for key in ("system", "machine", "libc"))
    if not same or _numbers(built.get("libc_version", "")) > _numbers(here["libc_version"]):
        raise SetupError(
            "the compiled model was built on another platform than this worker's",
            found=" ".join(here.values()),
            allowed=(" ".join(built.values()),),
            hint="start batchscore on a machine like its workers (an older C library will do), or use another engine",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
