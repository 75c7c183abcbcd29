"""The main job on real input, through real Dagster processes, with every number reconciled at the end."""
