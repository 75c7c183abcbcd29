"""Connect to Kafka with security options, for sources and producers alike, and recognise final failures.

kafka-python takes an untrusted certificate, or a mechanism that the broker does not offer, for a broker that is
not up yet. It retries until a timeout whose message names neither. Here the two are told apart. A connection
that the broker refuses is ``Fatal`` and names the setting; a broker that is away is ``Retriable``. If no client
can be made, neither a thread nor a socket is left behind, unlike with kafka-python's constructors.

Passwords never show: neither in messages nor in kafka-python's log at level DEBUG.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any, TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl import SASL_MECHANISMS
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from headrace.core.errors import Fatal, Retriable

log = logging.getLogger(__name__)

SETTING = "HEADRACE_KAFKA_SECURITY"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
#: Names of kafka-python's security options, e.g. ``sasl_plain_password``.
OPTIONS = sorted(
    name
    for name in KafkaConnectionManager.DEFAULT_CONFIG
    if name == "security_protocol" or name.startswith(("sasl_", "ssl_"))
)
_CONNECT_MS = 5_000
#: Longest pause between two attempts to reach a broker that restarts: Kafka's own default
#: (https://kafka.apache.org/documentation/#consumerconfigs_reconnect.backoff.max.ms); kafka-python's is 30 s.
_RECONNECT_MS = 1_000
#: TLS errors of a broken network, as opposed to two sides that do not agree.
_BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_REFUSED = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.KafkaConfigurationError,
)

_NAMED = 20  # most topics that a message names

T = TypeVar("T")


def connect(kind: Callable[..., T], servers: str, security: Mapping[str, Any], **options: Any) -> T:
    """Return a client of kafka-python that has found its cluster.

    Args:
        kind: Class of the client: consumer, producer or admin client.
        servers: ``host:port``, comma separated.
        security: Options ``security_protocol``, ``sasl_*`` and ``ssl_*``.
        options: All other options.

    Raises:
        Retriable: No broker answers within five seconds.
        Fatal: An option is wrong, or the broker and this side refuse each other.
    """
    given = client_options(security)
    if given:  # at level DEBUG kafka-python shows its whole configuration, and every byte that it sends
        logger = logging.getLogger("kafka")
        logger.setLevel(max(logger.level, logging.INFO))
    made: list[KafkaNetClient] = []

    def client(**configs: Any) -> KafkaNetClient:
        made.append((_Client if own_connections() else KafkaNetClient)(**configs))
        return made[-1]

    try:
        return kind(
            **options,
            bootstrap_servers=servers.split(","),
            bootstrap_timeout_ms=_CONNECT_MS,
            reconnect_backoff_max_ms=_RECONNECT_MS,
            kafka_client=client,
            **given,
        )
    except BaseException as error:
        for each in made:
            with suppress(Exception):  # the first error matters, not one of closing
                each.close()
        if refused := refusal(error, servers):
            raise refused from error
        if isinstance(
            error, (errors.KafkaTimeoutError, errors.KafkaConnectionError, errors.NodeNotReadyError)
        ):
            protocol = given.get("security_protocol", "PLAINTEXT")
            raise Retriable(
                f"no Kafka broker answers on {servers} ({protocol}); is it up? See 'headrace stack status'"
            ) from error
        raise


def client_options(security: Mapping[str, Any]) -> dict[str, Any]:
    """Check security options and return them as kafka-python takes them; reads certificates and keys.

    Raises:
        Fatal: An option is unknown, missing or unreadable. The message shows its value only if it is no secret.
    """
    for name in security:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
            raise Fatal(f"{SETTING} has an unknown option {name!r}; {hint}")
    protocol = security.get("security_protocol", "PLAINTEXT")
    if protocol not in PROTOCOLS:
        raise Fatal(f"{SETTING}: security_protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
    if protocol.startswith("SASL"):
        _check_sasl(security)
    elif sasl := [name for name in security if name.startswith("sasl_")]:
        raise Fatal(
            f"{SETTING}: {sasl[0]} needs security_protocol SASL_SSL or SASL_PLAINTEXT, not {protocol}"
        )
    given = dict(security)
    if protocol.endswith("SSL") and given.get("ssl_context") is None and own_connections():
        given["ssl_context"] = _ssl_context(security)
    return given


def _check_sasl(security: Mapping[str, Any]) -> None:
    mechanism = security.get("sasl_mechanism", "")
    if mechanism not in SASL_MECHANISMS:
        raise Fatal(f"{SETTING}: sasl_mechanism={mechanism!r} is none of {', '.join(SASL_MECHANISMS)}")
    if mechanism == "PLAIN" or mechanism.startswith("SCRAM"):
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if not isinstance(security.get(name), str):
                raise Fatal(f"{SETTING}: {mechanism} needs {name}, a string")


def _ssl_context(security: Mapping[str, Any]) -> ssl.SSLContext:
    """Make the TLS context once, here.

    kafka-python would make one per connection, and blame the broker for its errors.
    """
    defaults = KafkaSSLTransport.DEFAULT_CONFIG
    try:
        made: ssl.SSLContext = KafkaSSLTransport._build_ssl_context(
            {name: security.get(name, default) for name, default in defaults.items()}
        )
    except (OSError, ValueError, TypeError) as error:
        files = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
        shown = ", ".join(f"{name}={security[name]!r}" for name in files if security.get(name))
        raise Fatal(f"{SETTING}: TLS cannot be set up with {shown}: {error}") from None
    return made


def refusal(error: BaseException, servers: str) -> Fatal | None:
    """Return the error to raise if a broker, or this side, refused a connection for good; else None."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted ({each.verify_message}): check ssl_cafile"
        elif isinstance(each, ssl.SSLError) and not isinstance(each, _BROKEN_OFF):
            why = f"TLS fails ({each.reason or type(each).__name__}): check security_protocol and ssl_*"
        elif isinstance(each, errors.SaslAuthenticationFailedError):
            why = "it refuses the credentials: check sasl_mechanism, sasl_plain_username and sasl_plain_password"
        elif isinstance(each, errors.UnsupportedSaslMechanismError):
            why = "it does not offer that mechanism: check sasl_mechanism"
        elif isinstance(each, _REFUSED):
            why = f"{type(each).__name__}: check security_protocol and sasl_*"
        else:
            continue
        return Fatal(f"Kafka on {servers}: {why} in {SETTING}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all errors that it wraps, in every way that kafka-python wraps them."""
    while error is not None:
        yield error
        inner = error.args[0] if error.args else None
        error = error.__cause__ or error.__context__ or (inner if isinstance(inner, BaseException) else None)


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of one client; a refused connection is not tried again.

    kafka-python intends the same and fails twice. It discards what a broker says right before it hangs up. And
    what it does hear of a failed handshake never reaches the place that would keep it.
    """

    def __init__(self, *args: Any, **configs: Any) -> None:
        self._refused: dict[Any, BaseException] = {}
        super().__init__(*args, **configs)

    async def _build_transport(self, *args: Any, **named: Any) -> Any:
        transport = await super()._build_transport(*args, **named)
        receive = transport._sock_recv

        def last_words_first() -> tuple[bytes, BaseException | None]:
            data, error = receive()
            return data, None if data else error  # the next call meets the end again

        transport._sock_recv = last_words_first
        return transport

    def get_connection(self, node_id: Any, *args: Any, **named: Any) -> KafkaConnection:
        connection = super().get_connection(node_id, *args, **named)
        if "close" not in vars(connection):
            connection.init_future.add_errback(lambda error: self._note(node_id, error))
            # a broker may say why and hang up at once: the future gets one of the two errors, close the other
            close = connection.close

            def noting(error: BaseException | None = None) -> None:
                self._note(node_id, error)
                close(error)

            connection.close = noting
        return connection

    def _note(self, node_id: Any, error: BaseException | None) -> None:
        if error is not None and refusal(error, ""):
            self._refused[node_id] = error

    def maybe_raise_auth_failure(self, node_id: Any) -> None:
        if node_id in self._refused:
            raise self._refused[node_id]


def missing(topic: str, servers: str, topics: Collection[str]) -> Fatal:
    """Return the error for a topic that does not exist; it names those that do and how to create one."""
    near = difflib.get_close_matches(topic, topics, n=1)
    names = sorted(name for name in topics if not name.startswith("__"))  # Kafka's own topics begin with __
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    there = (
        f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:_NAMED]) or 'none'}{more}."
    )
    return Fatal(
        f"topic {topic!r} does not exist on {servers}; {there} Create it with 'headrace stack create' on the embedded"
        f" stack, elsewhere with 'kafka-topics.sh --bootstrap-server {servers} --create --topic {topic}'"
    )


@cache
def own_connections() -> bool:
    """Try whether kafka-python is built as our connections expect; warn once if not.

    Without them it works, and says less about a connection that a broker refuses.
    """
    try:
        net = NetworkSelector()
        try:
            manager = _Manager(net)
            fits = (
                inspect.iscoroutinefunction(KafkaConnectionManager._build_transport)
                and callable(KafkaTCPTransport._sock_recv)
                and callable(KafkaSSLTransport._build_ssl_context)
                and callable(manager.maybe_raise_auth_failure)
            )
        finally:
            net.close()
    except Exception as error:
        fits, why = False, f": {error!r:.200}"
    else:
        why = ""
    if not fits:
        log.warning(
            "kafka-python %s is built otherwise than expected%s; a refused connection may say less",
            version("kafka-python"),
            why,
        )
    return fits


class _Client(KafkaNetClient):  # type: ignore[misc]
    """kafka-python's client with our connections: its documented option ``kafka_client``."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net=net, manager=_Manager(net, **configs), **configs)
