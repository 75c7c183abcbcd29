"""Records on the wire: JSON to columns."""
