"""A pipeline in this installation, with the adapters that the settings name."""
