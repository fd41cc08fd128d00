"""The command line: arguments, progress, what is printed, exit codes. No logic."""

from batchscore.cli.main import main, script

__all__ = ["main", "script"]
