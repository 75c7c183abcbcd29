"""Dagster and nothing else: assets of ten lines that call one function of a room."""
