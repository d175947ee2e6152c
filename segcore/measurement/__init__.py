"""Is it fast? Timing, load scenarios, energy, and the machine it was measured on."""
