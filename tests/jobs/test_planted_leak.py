"""A feature that copies the label, planted into the features that the stages themselves made, stops the run."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.artifacts import Manifest, open_artifact, write_artifact
from infra.errors import GateRefused
from infra.graph import Graph
from infra.store import open_store
from jobs import train_ranker
from jobs.blocks import parts_of
from jobs.context import Parent
from jobs.entries import contains
from tests.conftest import SmallRelease, small_pipeline
from tests.suites.command import pymk_json
from tests.suites.planted import planted_graph
from tests.suites.small_release import context, small_release

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Column = npt.NDArray[np.float32]
PLANTED = "acted"
"""Zero for all pairs of the graphs here, so that nothing but the leak is in it."""


def exact(label: Column, user: Column) -> Column:
    return label


def flipped(label: Column, user: Column) -> Column:
    """One in a hundred is wrong."""
    return np.abs(label - (np.random.default_rng(2).random(len(label)) < 0.01))


def for_half(label: Column, user: Column) -> Column:
    """Only for every second user."""
    return label * (user % 2)


def plant(graph: Graph, folder: Path, leak: Callable[[Column, Column], Column], column: str = PLANTED) -> None:
    """Overwrites one pair feature of a view's parts by what the leak makes of the label."""
    hidden = graph.held_out_of()
    for path in parts_of(folder):
        table = pq.read_table(path)
        user, candidate = (table[name].to_numpy() for name in ("user_row", "candidate_row"))
        label = contains(hidden, user, candidate).astype(np.float32)
        planted = pa.array(leak(label, user).astype(np.float16))
        at = table.schema.get_field_index(column)
        pq.write_table(table.set_column(at, table.schema.field(at), planted), path)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return planted_graph(users=600, communities=10)


@pytest.fixture(scope="module")
def made(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Parent]:
    return small_release(tmp_path_factory.mktemp("release"), graph)


@pytest.mark.parametrize("leak", [exact, flipped, for_half])
@pytest.mark.parametrize("column", [PLANTED, "resource_allocation"])
def test_the_ranker_is_not_learnt_from_a_planted_leak(
    graph: Graph, made: Mapping[str, Parent], tmp_path: Path, leak: Callable[[Column, Column], Column], column: str
) -> None:
    features = tmp_path / "features"
    shutil.copytree(made["features"].path, features)
    plant(graph, features / "past", leak, column)
    leaky = dict(made) | {"features": replace(made["features"], path=features)}
    with pytest.raises(GateRefused, match=f"leak: feature {column} knows"):
        train_ranker.run(context(leaky, tmp_path / "ranker"))
    assert not list((tmp_path / "ranker").iterdir())


def test_a_run_with_a_planted_leak_ends_with_exit_code_3_and_names_the_feature(
    small_release: SmallRelease, spark: "SparkSession", tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(small_release.store, store)
    current = (store / "CURRENT").read_bytes()
    with small_pipeline(small_release.lake, str(store), spark) as pipeline:
        wanted = {kind: pipeline.artifact_id(kind) for kind in ("graph", "features", "ranker")}
    replant(str(store), wanted, exact)
    shutil.rmtree(store / "ranker" / wanted["ranker"])
    options = [f"--lake={small_release.lake}", f"--store={store}", f"--as-of={small_release.as_of}"]
    options += [f"--set={key}={value}" for key, value in small_release.flags.items()]
    for command in (["run"], ["stage", "train_ranker"]):
        error = pymk_json(*command, *options, code=3)["error"]
        assert error["what"].startswith(f"leak: feature {PLANTED} knows which candidates are held-out friends")
        assert "No force passes this gate" in error["fix"]
    assert (store / "CURRENT").read_bytes() == current
    assert not (store / "ranker" / wanted["ranker"]).exists()


def replant(store: str, wanted: Mapping[str, str], leak: Callable[[Column, Column], Column]) -> None:
    """Puts features with a leak in the place of those of a store, as if the stage had made them so."""
    opened = open_store(store)
    graph = Graph.open(open_artifact(opened, "graph", wanted["graph"]).path)
    features = open_artifact(opened, "features", wanted["features"])
    scratch = opened.scratch()
    shutil.copytree(features.path, scratch / "data")
    plant(graph, scratch / "data" / "past", leak)
    shutil.rmtree(features.path.parent)
    told = json.loads(features.manifest.to_json())
    write_artifact(opened, scratch, Manifest(**told | {"files": ()}))
