"""What is set, and where it is read from."""
