"""Shape what a message has into what a contract declares, in columns: names, places, formats, texts, derived fields.

``declared`` holds what a field may declare, ``faults`` verifies it at import, ``plan`` works out what is read from
a message. ``read`` fetches it, ``times`` and ``texts`` convert it, ``computed`` adds constants, derived fields and
keys, ``transform`` calls the contract's own function. Contracts that declare nothing never come here.
"""
