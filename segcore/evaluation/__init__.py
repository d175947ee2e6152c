"""Accuracy: metrics, expectations, parity and scores over datasets."""
