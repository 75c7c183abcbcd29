"""The embedded stack: every backing service as a supervised process on loopback."""
