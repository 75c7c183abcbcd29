"""Mistakes that people make, planted on purpose: each is named, stops nobody else, and is over once it is repaired."""
