"""The night's blend as a version of the model `nightly-blend`: the order in which the night shows people, for surfaces
that ask for it by list.

Those blends are pushed that have a form which exports as a loop: `ssd` and `spacing`.
"""

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from infra.artifacts import find_manifest
from infra.audit import who
from infra.errors import NotFound
from infra.graph import open_array
from infra.model_spec import InputSpec, ModelSpec, Resources
from infra.models import ModelVersion, Registry
from infra.releases import Release
from infra.store import ObjectStore
from jobs.hourly import open_files
from jobs.model_checking import check_apart

if TYPE_CHECKING:
    from gnn.blend.list_model import ListModel

NAME = "nightly-blend"
RANKINGS, EMBEDDINGS, VECTORS = "rankings", "embeddings", "now.npy"
EXPORTED = ("ssd", "spacing")
WINDOW = 10
"""Picks, with the next, that look at each other; that of gnn.blend.lists."""
GROUPS = 16
"""Of a person, at most, that are told apart."""
GOLDEN_PEOPLE = 100
MEMORY_BYTES = 16 << 20


def push_nightly_blend(store: ObjectStore, release: Release) -> ModelVersion | None:
    """The model of a release's blend, its version the id of the rankings; one that is there already stands. None where
    the night blends nothing, or in another way."""
    rankings = release.artifacts.get(RANKINGS)
    manifest = find_manifest(store, RANKINGS, rankings.artifact_id) if rankings else None
    rank = manifest.settings.get("rank", {}) if manifest else {}
    if rankings is None or rank.get("blend") not in EXPORTED or EMBEDDINGS not in release.artifacts:
        return None
    registry = Registry(store)
    try:
        return registry.get(NAME, rankings.artifact_id)
    except NotFound:
        pass
    from gnn.blend.list_export import export_list  # with torch: only for nights that blend

    vectors = open_files(store, EMBEDDINGS, release.artifacts[EMBEDDINGS].artifact_id, (VECTORS,)).path / VECTORS
    some = np.array(open_array(vectors)[:GOLDEN_PEOPLE])
    spec = spec_of(rankings.artifact_id, some.shape[1])
    scratch = store.scratch()
    try:
        folder = scratch / NAME
        model = model_of(str(rank["blend"]), float(rank["diversity"]))
        export_list(model, spec, golden_list(some), card_of(release, rank), folder)
        return registry.push(folder, check_apart, datetime.now(UTC).replace(microsecond=0), who())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def model_of(name: str, diversity: float) -> "ListModel":
    """rank.blend and rank.diversity as a model of lists."""
    from gnn.blend.list_model import LessPrices
    from gnn.blend.spaced_spectrum import SpacedSpectrum

    gamma, spacing = (diversity, 0.0) if name == "ssd" else (0.0, diversity)
    return LessPrices(SpacedSpectrum(gamma, spacing, WINDOW))


def spec_of(version: str, dimensions: int) -> ModelSpec:
    """Of the ranker's scores, prices, embeddings of so many dimensions, and groups."""
    return ModelSpec(
        name=NAME,
        version=version,
        kind="onnx",
        objective="befriend",
        unit="list",
        output="worth",
        inputs=(
            InputSpec(name="score"),
            InputSpec(name="price"),
            InputSpec(name="embedding", width=dimensions),
            InputSpec(name="attributes", type="int64", width=GROUPS, default=-1),
        ),
        resources=Resources(memory_bytes=MEMORY_BYTES),
    )


def golden_list(vectors: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """A list of people with these embeddings float32 [n, D]; what else is known of them is drawn."""
    draw, people = np.random.default_rng(len(vectors)), len(vectors)
    return {
        "score": draw.normal(size=people),
        "price": draw.random(people),
        "embedding": vectors,
        "attributes": draw.integers(-1, people, (people, GROUPS)),
    }


def card_of(release: Release, rank: dict[str, Any]) -> str:
    return (
        f"# The blend of {release.release_id}\n\n"
        f"rank.blend {rank['blend']}, rank.diversity {rank['diversity']}, over the ranker's scores less prices,"
        " brought to [0, 1] within the list; the first 50 places.\n"
    )
