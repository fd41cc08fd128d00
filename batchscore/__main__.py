"""``python -m batchscore`` is ``batchscore``."""

from batchscore.cli import main

if __name__ == "__main__":
    main()
