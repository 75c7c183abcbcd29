"""The ground floor: what every room may use. Knows no driver and no settings."""
