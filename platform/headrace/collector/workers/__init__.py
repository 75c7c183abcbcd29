"""Several processes that speak HTTP in front of one that owns log and index."""
