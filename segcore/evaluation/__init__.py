"""Is it right? Metrics, expectations, parity and scores over datasets."""
