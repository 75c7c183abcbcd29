"""Scaffold a project of one's own: the folder that ``headrace init`` makes."""
