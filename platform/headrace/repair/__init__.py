"""Repairs of data that has landed: redrive rejected records, erase people, rebuild days."""
