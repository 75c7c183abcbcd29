"""Every setting of Headrace, and the only code that reads the environment.

``settings`` composes the setting areas, ``secrets`` looks up secrets that settings refer to, and ``stack_env`` finds
a running embedded stack.
"""
