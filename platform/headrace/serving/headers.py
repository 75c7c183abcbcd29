"""Define the headers that keep a browser from doing what the server does not mean."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

Headers = list[tuple[bytes, bytes]]


def policy(style: str = "") -> str:
    """Return the content security policy: everything from here, nothing inline but one style sheet, if it is given."""
    styles = f"'self' 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" if style else "'self'"
    return (
        f"default-src 'self'; style-src {styles}; img-src 'self' data:; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'; object-src 'none'"
    )


#: Headers that every answer has.
SECURITY: Headers = [
    (b"content-security-policy", policy().encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
#: Those of an answer that a page of another origin may read.
SHARED: Headers = [one for one in SECURITY if one[0] != b"cross-origin-resource-policy"]
