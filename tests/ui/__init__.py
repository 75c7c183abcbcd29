"""What the Dagster UI shows, in a browser; `make ui-test` asks for it."""
