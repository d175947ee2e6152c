"""Timing, load scenarios, energy, and the machine that they are measured on."""
