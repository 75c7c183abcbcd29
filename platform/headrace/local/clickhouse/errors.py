"""Translate engine errors for the HTTP interface: a code, a status and one text."""

from __future__ import annotations

import re

#: HTTP status of an error code; every other code is 500. From ClickHouse's ``exceptionCodeToHTTPStatus``.
_CODES_OF_STATUS: dict[int, tuple[int, ...]] = {
    400: (
        *(6, 16, 20, 26, 27, 33, 36, 38, 41, 42, 43, 44, 53, 62, 69, 70, 72, 89, 117, 130, 131, 179, 184),
        *(215, 352, 372, 373, 386, 441, 456, 457),
    ),
    401: (194,),
    403: (192, 193, 291, 495, 497, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336),
    408: (159,),
    411: (381,),
    413: (229,),
    501: (48,),
    503: (202, 209, 439),
}
_STATUS = {code: status for status, codes in _CODES_OF_STATUS.items() for code in codes}

_CODE = re.compile(r"Code: (\d+)\.")
_NESTED = re.compile(r"^Code: (\d+)\. DB::Exception: (?=Code: \1\. )")


class ClickHouseError(Exception):
    """An error that goes to the client.

    Attributes:
        code: ClickHouse's error number, the value of ``X-ClickHouse-Exception-Code``.
        status: HTTP status of the response, as long as its head has not been sent.
        text: Message in the form that clients parse: ``Code: N. DB::Exception: ... (NAME)``.
    """

    def __init__(self, code: int, message: str, name: str, status: int | None = None) -> None:
        self.code = code
        self.status = status or _STATUS.get(code, 500)
        self.text = message if _CODE.match(message) else f"Code: {code}. DB::Exception: {message}. ({name})"
        super().__init__(self.text)


def denied(message: str) -> ClickHouseError:
    """Make the error of an access that the endpoint refuses, not the engine's grants."""
    return ClickHouseError(497, message, "ACCESS_DENIED")


def translate(error: BaseException, version: str = "") -> ClickHouseError:
    """Turn the engine's exception into a :class:`ClickHouseError`.

    The engine repeats ``Code: N. DB::Exception:`` where one of its layers wraps another. Clients expect it once,
    followed by the version.
    """
    if isinstance(error, ClickHouseError):
        return error
    text = str(error)
    start = text.find("Code: ")
    found = _CODE.match(text, start) if start >= 0 else None
    if not found:
        code, name = (49, "LOGICAL_ERROR") if isinstance(error, RuntimeError) else (1001, "STD_EXCEPTION")
        return ClickHouseError(code, text or type(error).__name__, name)
    text = _NESTED.sub("", text[start:].strip())
    if version and "(version " not in text:
        text += f" (version {version})"
    return ClickHouseError(int(found.group(1)), text, "")
