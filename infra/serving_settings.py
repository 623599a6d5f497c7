"""Settings of serving: the tables it reads, rules for a list, the lookup API, its ladder of answers, events, models."""

from typing import Literal

from pydantic import Field

from infra.host_port import HostPort
from infra.settings_section import Section


class ServingSettings(Section):
    partitions: int = Field(2, ge=1, le=4096, description="Hash partitions of the serving tables.")
    candidates: int = Field(150, ge=0, le=150, description="Stored candidates of a user, best first.")
    neighbours: int = Field(100, ge=0, le=1000, description="Stored friends of a user.")
    popular: int = Field(500, ge=1, le=10_000, description="Length of the popular list.")
    first_page: int = Field(
        20,
        ge=0,
        le=100,
        description="People of an answer that the night writes out as JSON: bytes for speed; 0 for none.",
    )


class RulesSettings(Section):
    company_attributes: tuple[str, ...] = Field(("company",), description="Attributes or kinds that name a company.")
    school_attributes: tuple[str, ...] = Field(
        ("school", "high_school"), description="Attributes or kinds that name a school."
    )
    max_per_company: int = Field(
        5, ge=1, le=1_000_000, description="People of one company among `limit`; the rest are demoted."
    )
    max_per_school: int = Field(
        3, ge=1, le=1_000_000, description="People of one school among `limit`; the rest are demoted."
    )
    fatigue_places: int = Field(
        2, ge=0, le=1000, description="Places that a person sinks for each time shown without a reaction; 0 for none."
    )


class ApiSettings(Section):
    host: str = Field("127.0.0.1", min_length=1, description="Address the lookup API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the lookup API listens on.")
    workers: int = Field(1, ge=1, le=256, description="Server processes.")
    threads: int = Field(
        0,
        ge=0,
        le=64,
        description="Requests that a worker has in hand at once; 0: one, or four where it asks other hosts for them.",
    )
    poll_s: float = Field(1.0, gt=0, le=3600, description="Seconds between looks at CURRENT.")
    retry_after_s: int = Field(5, ge=1, le=86_400, description="Retry-After of a 503.")
    key_per_s: float = Field(
        0, ge=0, le=1_000_000, description="Requests a second that a key may send; a second's worth at once, 0 for any."
    )
    user_per_s: float = Field(
        0, ge=0, le=1_000_000, description="Requests a second that may be sent for one user, as above; 0 for any."
    )
    max_body_kib: int = Field(1024, ge=1, le=1_048_576, description="KiB of a request's body, at most.")
    queue_ms: float = Field(
        50, ge=1, le=60_000, description="Time for which requests may wait their turn before some are turned away."
    )
    gzip_bytes: int = Field(
        8192, ge=256, le=2**30, description="Size from which a list is sent compressed to whoever takes gzip."
    )
    drain_s: float = Field(
        2,
        ge=0,
        le=3600,
        description="Seconds between SIGTERM, from which /readyz says no, and the end of taking requests.",
    )
    log_lines: Literal["auto", "json", "text"] = Field(
        "auto", description="What a server's log lines are; auto is text on a terminal and JSON elsewhere."
    )
    log_requests: Literal["failed", "all"] = Field(
        "failed", description="Requests that are logged: those refused or failed for other reasons than load, or all."
    )
    facts: str = Field(
        "",
        description="Where live facts are kept: a folder, or redis://…; empty for `live` in a store that is a folder.",
    )
    tables: str = Field(
        "",
        pattern=r"^((rediss?(\+cluster)?|unix|dynamodb)://.*)?$",
        description="Host that `pymk release load` fills and tables are read from; empty for the store's own files.",
    )
    lock_tables: bool = Field(
        False,
        description="Whether the tables' files are kept in memory, all of them, as far as the system allows (mlock).",
    )
    tables_timeout_ms: float = Field(50, ge=1, le=60_000, description="Time that an answer of that host may take.")
    score_candidates: int = Field(1000, ge=1, le=20_000, description="People that one request to /v1/score may name.")
    score_queue: int = Field(
        1000, ge=0, le=1_000_000, description="Requests to /v1/score?async=1 that may wait; 0 takes none."
    )
    score_queue_mib: int = Field(
        256,
        ge=1,
        le=2**20,
        description="MiB that such requests and their results may take, beside live facts; when full, none is taken.",
    )
    score_life_s: float = Field(
        600, ge=1, le=86_400, description="Seconds for which such a request waits, and then its result is kept."
    )


class EventSettings(Section):
    batch: int = Field(1000, ge=1, le=100_000, description="Events in one request, at most.")
    max_mib: int = Field(
        16_384, ge=1, le=2**24, description="MiB that live facts in a folder may take; when full, events are refused."
    )
    keep_days: int = Field(7, ge=0, le=3650, description="Days for which the log and event ids outlive their export.")
    fatigue_days: int = Field(
        30, ge=1, le=3650, description="Days after which it is forgotten that somebody was shown."
    )
    redis_timeout_ms: int = Field(
        100, ge=1, le=60_000, description="Milliseconds that Redis may take to read facts; ten times to store."
    )
    redis_replicas: int = Field(0, ge=0, le=100, description="Replicas that must have an event before it is accepted.")


class LadderSettings(Section):
    deadline_ms: float = Field(150, ge=1, le=60_000, description="Time a request has for its answer.")
    live_candidates: int = Field(
        1000, ge=0, le=5000, description="People that live ranking looks at for a user; 0 turns it off."
    )
    live_budget_ms: float = Field(80, ge=1, le=60_000, description="Time of the deadline that live ranking may take.")
    features_life_days: float = Field(
        0,
        ge=0,
        le=36_500,
        description="Age of a release from which live ranking takes what changes by the day for unknown; 0: none.",
    )
    ann_budget_ms: float = Field(
        30, ge=1, le=60_000, description="Time that index shards may take; late ones are left out."
    )
    ann_shards: tuple[HostPort, ...] = Field(
        (), description="host:port of processes that hold index shards; none: every worker maps them itself."
    )
    new_friends: int = Field(
        3, ge=1, le=1_000_000, description="Friends made since the release with whom a stored list is stale."
    )
    l1_mib: int = Field(64, ge=0, le=65_536, description="Memory of a worker for answers that it keeps; 0 for none.")
    l1_life_s: float = Field(300, ge=0.001, le=86_400, description="How long a worker keeps an answer.")
    l2: str = Field(
        "", pattern=r"^(rediss?://.*)?$", description="redis:// URI where workers share live rankings; empty for none."
    )
    l2_life_s: float = Field(3600, ge=1, le=864_000, description="How long a shared live ranking is kept.")
    l2_timeout_ms: float = Field(10, ge=1, le=60_000, description="Time that the shared cache may take.")
    last_good_mib: int = Field(16, ge=0, le=65_536, description="Memory of a worker for last good lists; 0 for none.")
    breaker_failures: int = Field(
        5, ge=1, le=1000, description="Failures more than successes after which a part is left alone."
    )
    breaker_wait_s: float = Field(
        1, ge=0.01, le=3600, description="Seconds until it is tried again; doubles up to 30 s."
    )
    fewer_at: float = Field(
        0.75, gt=0, le=1, description="Busy share of a worker from which live ranking looks at a quarter of the people."
    )
    no_live_at: float = Field(0.9, gt=0, le=1, description="Busy share of a worker from which nothing is ranked live.")


class LeafSettings(Section):
    addresses: tuple[HostPort, ...] = Field(
        (), description="host:port of leaf processes that score by routed models; none: every worker does so itself."
    )
    shard_size: int = Field(2, ge=1, le=1024, description="Leaf processes that a version of a model is placed on.")
    memory_mib: int = Field(
        1024, ge=1, le=2**24, description="Memory of a leaf for models, by what their model.toml says they take."
    )
    math_threads: int = Field(1, ge=1, le=256, description="Calls of models that a leaf makes at once.")
    load_threads: int = Field(2, ge=1, le=64, description="Models that a leaf loads at once.")
    most_waiting: int = Field(
        256, ge=1, le=100_000, description="Requests that may wait for their turn in a leaf; more are refused."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models of a leaf process score; auto takes a GPU if any. A worker scores on the CPU."
    )
    lz4: bool = Field(False, description="Whether columns are compressed on their way to a leaf process.")
    timeout_ms: float = Field(
        1000,
        ge=1,
        le=600_000,
        description="Time that a leaf process may take, be there more until the deadline; longer calls hang.",
    )
    cache_mib: int = Field(
        0, ge=0, le=65_536, description="Memory of a leaf for scores of identical requests; 0 for none."
    )
    cache_life_s: float = Field(60, ge=0.001, le=864_000, description="How long such scores are given again.")
    drain_s: float = Field(
        10, ge=0, le=3600, description="Seconds that a leaf process, told to stop, gives requests that it has in hand."
    )


class ShadowSettings(Section):
    share: float = Field(1.0, ge=0, le=1, description="Share of a surface's requests that its shadows score.")
    queue: int = Field(
        64, ge=1, le=100_000, description="Requests of a worker that may wait for shadows; more are dropped."
    )
    drop_at: float = Field(
        0.6, gt=0, le=1, description="Busy share of a worker from which requests are dropped before shadows score them."
    )
    file_s: float = Field(
        60, ge=0.01, le=86_400, description="Seconds after which a worker stores what its shadows scored, or sooner."
    )
    mib_per_hour: int = Field(
        256, ge=1, le=2**20, description="MiB that a worker stores of shadows in an hour; more requests are dropped."
    )
    keep_days: int = Field(
        14, ge=1, le=3650, description="Days for which `pymk release clean` leaves what shadows scored."
    )


class ModelSettings(Section):
    canary_window_s: float = Field(
        10, gt=0, le=86_400, description="Seconds after which what a canary does is counted anew."
    )
    canary_requests: int = Field(
        20,
        ge=1,
        le=4096,
        description="Requests of a window, or users of a night, before a canary is judged by time or scores.",
    )
    canary_failures: int = Field(
        3, ge=1, le=1_000_000, description="Failed requests of a window from which a canary may be taken off."
    )
    canary_failed_share: float = Field(
        0.05, ge=0, le=1, description="Share of its requests above which that many failures take it off."
    )
    canary_p95_ms: float = Field(
        50, gt=0, le=600_000, description="95th percentile of a canary's time to score above which it is taken off."
    )
    canary_drift: float = Field(
        2.0,
        gt=0,
        le=1000,
        description="Stability index of a canary's scores beside its golden batch above which it is taken off.",
    )
    drift_every: int = Field(
        10, ge=0, le=1_000_000, description="One in so many requests to a model is counted for drift; 0 for none."
    )
    drift_window: int = Field(
        1000, ge=100, le=1_000_000, description="Counted requests that drift is told of, half of them or more."
    )
