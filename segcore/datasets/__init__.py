"""Datasets of photos with class masks."""
