"""Health of lake, warehouse and models: measured here, judged as plain verdicts, shown by commands and checks."""
