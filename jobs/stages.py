"""The stages, in order: what each makes, from what, by which settings. Loads nothing heavy; the DAGs import it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """name: of the stage and of its module in jobs/. kind: of the artifact it makes.

    parents: kinds it reads. sections: settings that decide its content, beside `run`. sharded: may be built a shard
    a task. whole_only: those of the parents that a shard does not read. spark: needs a Spark session.
    """

    name: str
    kind: str
    parents: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    sharded: bool = False
    whole_only: tuple[str, ...] = ()
    spark: bool = False
    summary: str = ""


STAGES = (
    Stage("build_graph", "graph", (), ("graph",), spark=True, summary="Lake tables to two views of one graph"),
    Stage("train_encoder", "encoder", ("graph",), ("encoder",), summary="The graph neural network, learnt on past"),
    Stage("embed", "embeddings", ("graph", "encoder"), summary="A unit vector for every user, in both views"),
    Stage(
        "build_index",
        "index",
        ("graph", "embeddings"),
        ("index",),
        sharded=True,
        whole_only=("graph",),
        summary="Sharded ANN indexes",
    ),
    Stage(
        "candidates",
        "candidates",
        ("graph", "embeddings", "index"),
        ("candidates",),
        spark=True,
        summary="Who might be known: friends of friends, walks, neighbours in embedding space, shared affiliations",
    ),
    Stage(
        "features",
        "features",
        ("graph", "embeddings", "candidates"),
        ("candidates", "newcomers"),
        spark=True,
        summary="What the ranker sees of each pair",
    ),
    Stage("train_ranker", "ranker", ("graph", "features"), ("ranker",), summary="The ranker, learnt on past"),
    Stage(
        "rank",
        "rankings",
        ("graph", "embeddings", "features", "ranker"),
        ("rank",),
        spark=True,
        summary="The best people for every active user, with reasons",
    ),
    Stage(
        "serving_tables",
        "serving_tables",
        ("graph", "embeddings", "features", "ranker", "rankings"),
        ("serving", "rules"),
        summary="Lookup tables for the API",
    ),
    Stage(
        "evaluate",
        "report",
        (
            "graph", "encoder", "embeddings", "index", "candidates", "features", "ranker", "rankings", "serving_tables",
        ),
        ("rank", "evaluate"),
        summary="Metrics on held-out friendships, beside heuristics; the report",
    ),
)  # fmt: skip

PUBLISH = "publish"
"""The last step: gates, release, CURRENT. It makes a release, not an artifact."""

STAGE_NAMES = (*(stage.name for stage in STAGES), PUBLISH)


def stage_named(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)


def stage_of(kind: str) -> Stage:
    return next(stage for stage in STAGES if stage.kind == kind)
