"""The peers, each a script of its own that knows nothing of batchscore: ``python peers/NAME.py job.json``.

A script prints one JSON document as its last line: what starting its framework took, and its settings.
"""
