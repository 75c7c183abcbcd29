"""Change the schema of the raw database in numbered steps, each applied once."""
