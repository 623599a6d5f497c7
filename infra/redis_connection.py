"""Connections to Redis, for whatever is kept there: one place for addresses, passwords, time limits and errors.

The address is `redis://host:port/db`, `rediss://` with TLS, `unix://path`, or `redis+cluster://host:port`. User and
password come from the environment (PYMK_REDIS_USERNAME, PYMK_REDIS_PASSWORD), as settings are printed and frozen into
manifests.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from infra.errors import StoreError, UsageError

SCHEMES = ("redis", "rediss", "unix")
CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
USERNAME_VARIABLE, PASSWORD_VARIABLE = "PYMK_REDIS_USERNAME", "PYMK_REDIS_PASSWORD"
CONNECTIONS = 16
"""Of one client, at most; each thread that waits for an answer has one."""


def is_redis(uri: str) -> bool:
    """Whether the address names a Redis, and not a folder or another store."""
    return urlsplit(uri).scheme in SCHEMES


def connect(uri: str, timeout_s: float, connections: int = CONNECTIONS) -> "redis.Redis":
    """A thread-safe client with pooled connections; it connects when it is first used.

    timeout_s: for connecting and for each answer; nothing is tried twice, which is the caller's to decide.
    Raises UsageError for an address that names no Redis or holds a password.
    """
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES or not (parts.hostname or parts.path):
        raise UsageError(f"{shown(uri)}: names no Redis", "Write redis://host:port/db, rediss://… or unix://path.")
    _refuse_secrets(uri)
    try:
        return redis.Redis.from_url(
            uri,
            username=os.environ.get(USERNAME_VARIABLE),
            password=os.environ.get(PASSWORD_VARIABLE),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=connections,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise UsageError(f"{shown(uri)}: {error}", "Write redis://host:port/db.") from error


def is_cluster(uri: str) -> bool:
    """Whether the address names a node of a Redis Cluster, from which the others are learnt."""
    return urlsplit(uri).scheme in CLUSTER_SCHEMES


def names_redis(uri: str) -> bool:
    """Whether the address names a Redis, alone or in a cluster."""
    return is_redis(uri) or is_cluster(uri)


def connect_cluster(uri: str, timeout_s: float) -> RedisCluster:
    """As `connect`, to `redis+cluster://host:port`, with CONNECTIONS to each node. Connects at once.

    Raises StoreError where the node cannot be asked for the others.
    """
    parts = urlsplit(uri)
    _refuse_secrets(uri)
    with explained(shown(uri)):
        return RedisCluster.from_url(
            parts._replace(scheme=CLUSTER_SCHEMES[parts.scheme]).geturl(),
            username=os.environ.get(USERNAME_VARIABLE),
            password=os.environ.get(PASSWORD_VARIABLE),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )


def memory_of(client: Any, uri: str) -> list[dict[str, Any]]:
    """What a Redis, or each node of a cluster that takes writes, says of its memory. What the client raises is the
    caller's to explain."""
    found = client.info("memory", **({"target_nodes": "primaries"} if is_cluster(uri) else {}))
    return [found] if "used_memory" in found else list(found.values())


def evicting_policy(nodes: Iterable[Mapping[str, Any]]) -> str:
    """The policy by which a node drops keys that do not expire once its memory is short; empty where none does.

    nodes: as `memory_of` tells.
    """
    policies = (str(node.get("maxmemory_policy", "")) for node in nodes if node.get("maxmemory"))
    return next((policy for policy in policies if policy.startswith("allkeys")), "")


def _refuse_secrets(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.password or parts.username:
        fix = f"Leave them out, and set {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}."
        raise UsageError(f"{shown(uri)}: holds a user or a password, and settings are printed", fix)


def shown(uri: str) -> str:
    """The address without user and password, for messages."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns what the client raises into a StoreError that says what to do. what: the address, or more."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise StoreError(f"{what}: {error}", f"Check {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}.") from error
    except redis.ReadOnlyError as error:
        raise StoreError(f"{what}: is a replica and takes no writes", "Name the primary.") from error
    except redis.OutOfMemoryError as error:
        raise StoreError(f"{what}: Redis is full: {error}", "Raise its maxmemory, or remove something.") from error
    except redis.ResponseError as error:
        raise StoreError(f"{what}: {error}") from error
    except redis.TimeoutError as error:
        raise StoreError(f"{what}: did not answer in time", "Check that Redis is not overloaded or hung.") from error
    except (redis.RedisError, RedisClusterException, OSError) as error:
        raise StoreError(f"{what}: {error}", "Check the address, and that Redis runs.") from error
