"""Serve numbers over HTTP: the metrics API and its cache, and the routes of the page and of what is measured."""
