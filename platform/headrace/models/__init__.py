"""The dbt project as data."""
