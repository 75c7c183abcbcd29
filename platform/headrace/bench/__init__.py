"""What Headrace costs and how fast it is, measured on the machine at hand. Every measured run is reconciled."""
