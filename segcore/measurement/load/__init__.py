"""Load scenarios after MLPerf Inference: how queries come, how they are timed, and what the times prove."""
