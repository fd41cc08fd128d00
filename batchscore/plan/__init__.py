"""Decides everything before a row is read; pure."""
