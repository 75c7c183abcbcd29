"""Clean texts: white space off, texts that mean null to null, lower case."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def cleaned(
    texts: pl.Series, *, strip: bool = False, lower: bool = False, nulls: Sequence[str] = ()
) -> pl.Series:
    """Strip, then compare with ``nulls``, then lower; a null stays null.

    With ``lower``, the comparison ignores case, and with ``strip`` the white space around ``nulls``.
    """
    if strip:
        texts = texts.str.strip_chars()
        nulls = [text.strip() for text in nulls]
    if lower:
        texts = texts.str.to_lowercase()
        nulls = [text.lower() for text in nulls]
    if nulls:
        void = texts.is_in(list(dict.fromkeys(nulls)))
        if void.any():
            texts = texts.set(void, None)
    return texts
