"""Dagster's internals, behind one door."""
