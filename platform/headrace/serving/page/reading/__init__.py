"""Read lake, streams and Dagster's tables for the page, in a process beside it.

Polars, Arrow and delta-rs take some 200 MB and seconds to import, and a scan cannot be cancelled. So the server imports
nothing of this; ``worker`` runs it in a process that is started when somebody looks, ended when nobody does any more,
and killed when an answer is overdue.
"""
