"""``python -m batchscore`` is ``batchscore``."""

from batchscore.cli import script

if __name__ == "__main__":
    script()
