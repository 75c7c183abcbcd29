"""Ask a schema registry for schemas by their ids: Confluent's, Karapace, Apicurio's interface for Confluent's clients.

Confluent's own client speaks to it. A registry that is away, or answers with an error of its own, is ``Retriable``, and
who asks waits as for any service; one that refuses the credentials is ``Fatal`` and names the setting. An id that the
registry does not know is an answer, too.
"""

from __future__ import annotations

import logging
import ssl
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from headrace.core.errors import BadData, Fatal, Retriable
from headrace.core.schemas import Schema, kind_of

URL, USER, TOKEN, CA_FILE = (
    f"HEADRACE_SCHEMA_REGISTRY_{name}" for name in ("URL", "USER", "TOKEN", "CA_FILE")
)
_SECONDS = 10.0
#: Largest schema, bytes with everything that it refers to; a registry on Kafka holds one message of 1 MiB at most.
_MOST_BYTES = 4 << 20
#: Most schemas that one refers to, directly or not.
_MOST_REFERENCES = 1_000
#: Error codes for what is not there (https://docs.confluent.io/platform/current/schema-registry/develop/api.html).
_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA = 40401, 40402, 40403

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """Where a registry is, and as whom to ask it.

    Attributes:
        url: Its root; several of one cluster are comma separated.
        user: Name for basic authentication; empty for none.
        password: Its password.
        token: Bearer token, instead of a name.
        ca_file: Certificates to trust; empty for the usual ones.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_file: str = ""


class SchemaRegistry:
    """A registry. Connects on first use; for one thread at a time.

    Args:
        access: Where it is.
        guard: Makes every call; see ``core.guard``.
    """

    def __init__(
        self, access: Access, guard: Callable[[Callable[[], Any]], Any] = lambda call: call()
    ) -> None:
        self._access, self._guard = access, guard
        self._client: Any = None

    def schema(self, id: int) -> Schema | None:
        """Return the schema with an id, with all that it refers to; None if the registry knows no such id.

        Raises:
            BadData: The schema is too large, or refers to one that is not there.
            Fatal: The registry refuses to answer, or the address is none of a registry.
            Retriable: It does not answer, or with an error of its own.
        """
        found = self._guard(lambda: self._asked(lambda client: client.get_schema(id)))
        if found is None:
            return None
        references: dict[str, str] = {}
        size = len(found.schema_str)
        for name, text in self._references(found, ()):
            if name not in references:
                references[name] = text
                size += len(text)
            if size > _MOST_BYTES or len(references) > _MOST_REFERENCES:
                break
        if size > _MOST_BYTES:
            raise BadData(f"it is larger than {_MOST_BYTES:,} bytes")
        if len(references) > _MOST_REFERENCES:
            raise BadData(f"it refers to more than {_MOST_REFERENCES:,} schemas")
        return Schema(kind_of(found.schema_type), found.schema_str, tuple(references.items()))

    def _references(self, schema: Any, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """Yield name and text of what a schema refers to, each after what it needs itself."""
        for one in schema.references or ():
            if one.name in above:
                raise BadData(f"it refers to {one.name!r}, which refers to itself")
            found = self._version(one.subject, one.version)
            if found is None:
                raise BadData(
                    f"it refers to {one.name!r}, version {one.version} of {one.subject!r}, which is not there"
                )
            yield from self._references(found.schema, (*above, one.name))
            yield one.name, found.schema.schema_str

    def _version(self, subject: str, version: int) -> Any:
        # a version that was deleted is still referred to
        return self._guard(
            lambda: self._asked(lambda client: client.get_version(subject, version, deleted=True))
        )

    def _asked(self, call: Callable[[Any], T]) -> T | None:
        """Make a call; return None for what the registry says it does not have."""
        client = self._connected()
        import httpx
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        url = self._access.url
        try:
            return call(client)
        except SchemaRegistryError as error:
            if error.error_code in (_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA):
                return None
            said = (
                f"the schema registry on {url} answers {error.http_status_code}: {error.error_message!s:.200}"
            )
            if error.http_status_code in (401, 403):
                raise Fatal(f"{said}; check {USER} with its password, or {TOKEN}") from error
            if error.http_status_code == 429 or error.http_status_code >= 500:
                raise Retriable(said) from error
            raise Fatal(f"{said}; is {URL} the root of a schema registry?") from error
        except httpx.HTTPError as error:
            if why := _untrusted(error):
                raise Fatal(
                    f"the schema registry on {url}: its certificate is not trusted ({why}): check {CA_FILE}"
                ) from error
            said = str(error) or type(error).__name__
            raise Retriable(f"the schema registry on {url} does not answer: {said}") from error
        except ValueError as error:  # an answer that is not JSON
            raise Fatal(f"{url} does not answer as a schema registry does: {error}; check {URL}") from error

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _client(self._access)
        return self._client

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.__exit__()


def _client(access: Access) -> Any:
    """Make Confluent's client; retries are the guard's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of its own dependencies complains about another
        from confluent_kafka.schema_registry import SchemaRegistryClient

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it says each request at level INFO
    options: dict[str, Any] = {"url": access.url, "timeout": _SECONDS, "max.retries": 0}
    if access.ca_file:
        options["ssl.ca.location"] = access.ca_file
    if access.token:
        # a plain bearer token, without the names that Confluent Cloud asks for beside one
        options |= {
            "bearer.auth.credentials.source": "CUSTOM",
            "bearer.auth.custom.provider.function": lambda _: {
                "bearer.auth.token": access.token,
                "bearer.auth.logical.cluster": "",
                "bearer.auth.identity.pool.id": "",
            },
            "bearer.auth.custom.provider.config": {},
        }
    elif access.user:
        options["basic.auth.user.info"] = f"{access.user}:{access.password}"
    try:
        return SchemaRegistryClient(options)
    except OSError as error:
        raise Fatal(f"{CA_FILE}={access.ca_file} cannot be read: {error}") from error


def verified(access: Access) -> Access:
    """Return an access as it is.

    Raises:
        Fatal: It cannot work. The message shows no secret.
    """
    for one in access.url.split(","):
        parts = urlsplit(one.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Fatal(f"{URL} is no URL that begins with http:// or https://")
        if parts.username or parts.password:
            raise Fatal(f"{URL} holds credentials: move them to {USER} and its password")
    if access.token and access.user:
        raise Fatal(f"{USER} and {TOKEN} are both set: set the one that the registry asks for")
    return access


def _untrusted(error: BaseException | None) -> str:
    """Say why TLS did not trust the other side, from anywhere in a chain of errors; empty if that is not it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return ""
