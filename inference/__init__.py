"""Inference: finding recordings, scoring them, explaining predictions, plotting, and writing results."""
