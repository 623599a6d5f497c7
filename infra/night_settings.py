"""Settings of the night: what its stages compute, what gates a release, and the store that keeps it."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from infra.settings_section import Section

BackendName = Literal["exact", "hnsw", "ivf_pq", "scann"]
Ablation = Literal[
    "no_gnn", "no_walk", "no_profile", "no_factors", "no_interactions", "no_exposure", "no_blend", "no_ranker"
]
"""What a report can be asked to measure a release without."""


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


class StoreSettings(Section):
    keep_releases: int = Field(7, ge=1, le=1_000_000, description="Releases that `release clean` keeps.")
    lease_s: float = Field(
        60, ge=1, le=3600, description="Time without a sign of life after which another run takes over what one made."
    )
