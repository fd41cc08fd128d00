"""The embedded default: made-up transactions, a model that scores them, and the job run on them, without a server."""

from batchscore.demo.data import make_data, transactions
from batchscore.demo.run import DemoOutcome, run_demo
from batchscore.demo.training import train_and_register

__all__ = ["DemoOutcome", "make_data", "run_demo", "train_and_register", "transactions"]
