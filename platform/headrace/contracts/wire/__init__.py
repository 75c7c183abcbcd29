"""Decode records on the wire: from JSON to typed columns."""
