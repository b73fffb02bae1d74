"""Imported by the process that runs are forked from (running.py)."""

from core.librosa_loading import load_librosa

load_librosa()
