"""Load scenarios after MLPerf Inference: when queries arrive, how they are timed, and what their latencies prove."""
