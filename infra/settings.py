"""Settings: defaults, a TOML file, the environment and flags, parsed once into frozen typed values.

Later sources win: default < file < environment (`PYMK_INDEX__SHARDS=4`) < flag (`--set index.shards=4`).
Secrets are never settings; they come from the environment alone (AWS_*).
"""

import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from infra.errors import UsageError

ENV_PREFIX = "PYMK_"
OTHER_VARIABLES = (
    "PYMK_LAKE", "PYMK_STORE", "PYMK_CONFIG", "PYMK_CACHE_DIR", "PYMK_BENCH_USERS", "PYMK_DRAIN_FILE",
    "PYMK_SPARE_THREADS",
    "PYMK_REDIS_USERNAME", "PYMK_REDIS_PASSWORD", "PYMK_RUN_ID", "PYMK_ALERT_WEBHOOK", "PYMK_LATE", "PYMK_STORE_URL",
)  # fmt: skip
"""Variables with the prefix that are no settings; whatever else has it is warned about, as likely misspelt."""

BackendName = Literal["exact", "hnsw", "ivf_pq", "scann"]
Ablation = Literal[
    "no_gnn", "no_walk", "no_profile", "no_factors", "no_interactions", "no_exposure", "no_blend", "no_ranker"
]
"""What a report can be asked to measure a release without."""

log = logging.getLogger(__name__)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class RunSettings(Section):
    seed: int = Field(17, ge=0, le=2**31 - 1, description="Seed of everything random in a run.")
    threads: int = Field(2, ge=1, le=256, description="Math threads of a stage that runs in one process.")


class SparkSettings(Section):
    master: str = Field(
        "local[2]",
        min_length=1,
        description="Spark on this machine, local, local[N] or local[*], or a standalone cluster, spark://host:port.",
    )
    memory: str = Field(
        "2g", pattern=r"^[1-9][0-9]{0,5}[gm]$", description="Memory of the Spark driver, and so of local mode."
    )
    executor_memory: str = Field(
        "1g", pattern=r"^[1-9][0-9]{0,5}[gm]$", description="Memory of the JVM of each worker of a cluster."
    )
    driver_host: str = Field(
        "", description="Address at which a cluster's workers find the driver; empty: the one that leads to the master."
    )
    partitions: int = Field(8, ge=1, le=100_000, description="Shuffle partitions of build_graph.")


class GraphSettings(Section):
    max_bad_share: float = Field(0.01, ge=0, le=1, description="Share of bad rows in a table above which a run stops.")
    held_out_share: float = Field(0.1, gt=0, lt=0.5, description="Share of friendships held out of the past view.")
    report_share: float = Field(0.3, gt=0, lt=1, description="Share of users kept for the report alone.")
    validate_share: float = Field(0.1, gt=0, lt=1, description="Share of users that early stopping looks at.")
    dismissal_days: int = Field(180, ge=1, le=36_500, description="Days after which a dismissal expires.")


class EncoderSettings(Section):
    dimensions: int = Field(128, ge=8, le=1024, description="Length of an embedding.")
    hidden: int = Field(128, ge=8, le=4096, description="Width of the hidden layers.")
    layers: int = Field(2, ge=1, le=4, description="Message-passing layers.")
    fanout: int = Field(10, ge=1, le=1000, description="Neighbours sampled in the first layer; half in others.")
    batch_size: int = Field(1024, ge=2, le=1_000_000, description="Target friendships in a mini-batch.")
    max_steps: int = Field(600, ge=1, le=10_000_000, description="Optimiser steps at most.")
    patience: int = Field(
        5, ge=1, le=1_000_000, description="Validations without improvement after which training stops."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Step size of AdamW.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where torch runs; auto takes a GPU if any.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of matrix products while training; auto is bfloat16 on a GPU."
    )
    processes: int = Field(1, ge=1, le=64, description="Processes that train together on this machine.")
    model: Literal["residual_propagation", "graph_sage"] = Field(
        "residual_propagation", description="Which graph neural network."
    )
    warm_start: str = Field(
        "",
        pattern=r"^([0-9]{8}T[0-9]{6}Z-[0-9a-f]{16})?$",
        description="Artifact id of a finished encoder in the store whose weights are the first ones; empty for none.",
    )


class IndexSettings(Section):
    backend: BackendName = Field("ivf_pq", description="ANN library and structure.")
    shards: int = Field(2, ge=1, le=4096, description="Index shards; row r lives in shard r mod shards.")
    min_recall: float = Field(0.95, ge=0, le=1, description="Gate: recall@100 against exact search.")
    hnsw_links: int = Field(16, ge=4, le=128, description="HNSW links a node (M).")
    hnsw_ef_construction: int = Field(200, ge=10, le=100_000, description="HNSW build beam.")
    hnsw_ef_search: int = Field(200, ge=10, le=1_000_000, description="HNSW search beam, at least.")
    ivf_probe_share: float = Field(0.05, gt=0, le=1, description="Share of IVF lists searched, at least.")
    scann_search_share: float = Field(0.05, gt=0, le=1, description="Share of ScaNN leaves searched, at least.")
    rerank: int = Field(
        400, ge=1, le=1_000_000, description="Neighbours of a shard re-ranked with exact scores, at least."
    )
    target_recall: float = Field(0.97, ge=0, le=1, description="Search is widened until a shard's recall@100 is this.")
    exact_below: int = Field(
        20_000, ge=0, le=1_000_000_000, description="Rows of a shard below which ivf_pq and scann search exactly."
    )
    recall_queries: int = Field(1000, ge=1, le=1_000_000, description="Queries at most that recall is measured on.")
    store: Literal["float32", "int8"] = Field(
        "float32", description="What hnsw and ivf_pq keep of the vectors; int8 is a quarter of it, scores 0.001 off."
    )

    @field_validator("store")
    @classmethod
    def _int8_where_it_is_kept(cls, store: str, info: ValidationInfo) -> str:
        if store == "int8" and info.data.get("backend") in ("exact", "scann"):
            raise ValueError(f"index.backend {info.data['backend']} keeps float32 only; hnsw and ivf_pq keep int8")
        return store


class CandidateSettings(Section):
    per_user: int = Field(300, ge=1, le=5000, description="Candidates kept for a user.")
    hub_cap: int = Field(
        2000, ge=10, le=1_000_000, description="Friends of a friend looked at; beyond it a seeded sample."
    )
    walk_budget: int = Field(
        30_000, ge=1000, le=1_000_000_000, description="Edges a personalised PageRank walk may touch for a user."
    )
    ann: int = Field(100, ge=0, le=5000, description="Nearest neighbours asked of the index for a user.")
    block: int = Field(2048, ge=1, le=1_000_000, description="Users a Spark task handles at a time.")
    learn_users: int = Field(
        50_000, ge=10, le=100_000_000, description="Users at most whose past candidates the ranker learns from."
    )


class NewcomerSettings(Section):
    kind: Literal["logit", "two_tower"] = Field(
        "logit", description="What ranks for users without friends; two_tower is the logit with two towers beside it."
    )


class RankerSettings(Section):
    kind: Literal["auto", "trees", "mlp", "ensemble"] = Field(
        "auto", description="What ranks, above a linear prior; auto: trees, or the ensemble where that is better."
    )
    trees: int = Field(300, ge=1, le=5000, description="trees: boosting rounds at most.")
    depth: int = Field(4, ge=1, le=12, description="trees: depth of a tree.")
    learning_rate: float = Field(0.05, gt=0, le=1, description="trees: shrinkage.")
    hidden: int = Field(64, ge=2, le=4096, description="mlp: width of the first hidden layer; half in the second.")
    epochs: int = Field(40, ge=1, le=10_000, description="mlp: passes over the lists at most.")
    precision: Literal["float32", "int8"] = Field("float32", description="mlp: numbers the exported network holds.")


class RankSettings(Section):
    per_user: int = Field(100, ge=1, le=1000, description="Ranked people stored for a user.")
    exposure: float = Field(0.3, ge=0, le=10, description="How far people sink whom many lists show.")
    blend: Literal["none", "ssd", "dpp", "mmr", "spacing"] = Field("none", description="How lists are made diverse.")
    diversity: float = Field(0.1, ge=0.001, le=0.999, description="What diversity counts beside relevance in a blend.")


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


class GateSettings(Section):
    max_recall_drop: float = Field(0.1, ge=0, le=1, description="Relative loss of recall@20 that refuses a release.")
    min_coverage: float = Field(0.5, ge=0, le=1, description="Share of users who must have a ranking.")
    min_rows_share: float = Field(
        0.7, ge=0, le=1, description="Share of the rows that a table had a release before, below which no night starts."
    )
    min_against_heuristics: float = Field(
        0.9, ge=0, le=10, description="Share of the best heuristic's recall@20 that a release must reach."
    )
    min_shown: float = Field(0.1, ge=0, le=1, description="Share of people who must be among somebody's first 20.")
    max_shown_drop: float = Field(0.2, ge=0, le=1, description="Relative loss of people shown that refuses a release.")
    max_gini: float = Field(0.98, ge=0, le=1, description="Gini coefficient of who is shown, at most.")
    max_gini_rise: float = Field(0.1, ge=0, le=1, description="Rise of that Gini coefficient that refuses a release.")
    max_input_change: float = Field(
        0.3, ge=0, le=1000, description="Change of users, friendships … in a week that refuses a release: 0.3 is × 1.3."
    )
    max_degree_shift: float = Field(
        0.25, ge=0, le=1000, description="Stability index of friends a user that refuses a release, in a week."
    )
    max_score_shift: float = Field(
        2.0, ge=0, le=1000, description="Stability index of the scores that refuses a release, in a week."
    )


class EvaluateSettings(Section):
    ablations: tuple[Ablation, ...] = Field(
        (), description="Parts the report leaves out, learning again without; no_gnn, no_walk, no_ranker ..."
    )
    backends: tuple[BackendName, ...] = Field(
        (), description="Index backends the report builds and measures beside the one in use."
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
    tables_timeout_ms: float = Field(50, ge=1, le=60_000, description="Time that an answer of that host may take.")


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
    ann_shards: tuple[str, ...] = Field(
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


class StoreSettings(Section):
    keep_releases: int = Field(7, ge=1, le=1_000_000, description="Releases that `release clean` keeps.")
    lease_s: float = Field(
        60, ge=1, le=3600, description="Time without a sign of life after which another run takes over what one made."
    )


class Settings(Section):
    """Every setting of the product, by section."""

    run: RunSettings = RunSettings()
    spark: SparkSettings = SparkSettings()
    graph: GraphSettings = GraphSettings()
    encoder: EncoderSettings = EncoderSettings()
    index: IndexSettings = IndexSettings()
    candidates: CandidateSettings = CandidateSettings()
    newcomers: NewcomerSettings = NewcomerSettings()
    ranker: RankerSettings = RankerSettings()
    rank: RankSettings = RankSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    serving: ServingSettings = ServingSettings()
    gates: GateSettings = GateSettings()
    rules: RulesSettings = RulesSettings()
    api: ApiSettings = ApiSettings()
    ladder: LadderSettings = LadderSettings()
    events: EventSettings = EventSettings()
    store: StoreSettings = StoreSettings()

    def section(self, name: str) -> dict[str, Any]:
        """One section as plain JSON values, as frozen into manifests."""
        return getattr(self, name).model_dump(mode="json")


def load(
    file: str | Path | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Settings and, for each `section.key` that is not a default, its origin (file name, variable or flag).

    flags maps `section.key` to text. Raises UsageError naming the key, the value, the rule and the origin.
    """
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}

    def put(section: str, key: str, value: Any, origin: str) -> None:
        merged.setdefault(section, {})[key] = value
        origins[f"{section}.{key}"] = origin

    for section, values in _read_toml(file).items():
        if not isinstance(values, dict):
            raise UsageError(f"{section}: is not a section ({file})", f"Sections: {', '.join(Settings.model_fields)}.")
        for key, value in values.items():
            put(section, key, value, str(file))
    for name, text in sorted((os.environ if environ is None else environ).items()):
        section, separator, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if name.startswith(ENV_PREFIX) and separator:
            put(section, key, _value_of(section, key, text), name)
        elif name.startswith(ENV_PREFIX) and name not in OTHER_VARIABLES:
            log.warning("%s", _ignored(name))
    for dotted, text in (flags or {}).items():
        section, separator, key = dotted.partition(".")
        if not separator:
            raise UsageError(f"--set {dotted}: is not section.key", "Write for example --set index.shards=4.")
        put(section, key, _value_of(section, key, text), f"--set {dotted}")
    return _validate(merged, origins), origins


def _read_toml(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(Path(file).read_text())
    except FileNotFoundError:
        raise UsageError(f"{file}: no such settings file", "Check --config.") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}", "Give a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fix = "Write sections and keys as [index] and shards = 4; docs/settings.md lists them."
        raise UsageError(f"{file}: not TOML: {error}", fix) from None


def _ignored(variable: str) -> str:
    """What to say of a variable that looks like a setting and is none: not an error, as others may set it for us."""
    rest = variable.removeprefix(ENV_PREFIX).lower()
    for section, field in Settings.model_fields.items():
        if rest.removeprefix(f"{section}_") in type(field.default).model_fields and rest.startswith(f"{section}_"):
            meant = f"{ENV_PREFIX}{section}__{rest.removeprefix(f'{section}_')}".upper()
            return f"{variable}: is no setting and is ignored; two underscores part section and key: {meant}"
    return f"{variable}: is no setting and is ignored; settings are written {ENV_PREFIX}INDEX__SHARDS"


def _value_of(section: str, key: str, text: str) -> Any:
    """Text from the environment or a flag; a tuple setting is split at commas, pydantic parses the rest."""
    model = Settings.model_fields.get(section)
    field = type(model.default).model_fields.get(key) if model else None
    if field is not None and get_args(field.annotation)[-1:] == (Ellipsis,):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _validate(merged: dict[str, dict[str, Any]], origins: dict[str, str]) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        lines = []
        for one in error.errors():
            dotted = ".".join(str(part) for part in one["loc"][:2])
            origin = origins.get(dotted) or next((o for k, o in origins.items() if k.startswith(dotted)), "default")
            if one["type"] == "extra_forbidden":
                known = ", ".join(_known_keys(dotted))
                lines.append(f"{dotted}: no such setting ({origin}); known: {known}")
            else:
                lines.append(f"{dotted}: {one['input']!r}: {one['msg'][:1].lower()}{one['msg'][1:]} ({origin})")
        raise UsageError("\n".join(lines), "`pymk config show` lists every setting.") from None


def _known_keys(dotted: str) -> list[str]:
    section = dotted.partition(".")[0]
    model = Settings.model_fields.get(section)
    return list(type(model.default).model_fields) if model else list(Settings.model_fields)
