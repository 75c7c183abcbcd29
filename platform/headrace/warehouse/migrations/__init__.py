"""Versioned changes of the raw database."""
