"""The ground floor, which every room may use. It knows no driver and no settings."""
