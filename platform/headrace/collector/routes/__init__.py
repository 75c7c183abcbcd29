"""Translate the protocols that clients speak into drafts, one file per protocol, and outcomes into their answers."""
