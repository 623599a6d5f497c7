"""Starting from the weights of a finished encoder, trained on an earlier graph.

Codes and rows differ between graphs, so rows of the tables are matched by what they stand for: a feature by its
attribute and value or its entity, a user's vector by the user id. What the old encoder does not know starts as
anywhere else. Afterwards the new embeddings are compared with the old ones, up to a rotation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gnn.checkpoint import open_encoder
from gnn.embed import embed
from gnn.inputs import COUNT_BUCKETS, Vocabulary
from gnn.model import Encoder
from gnn.models import MODELS
from infra.errors import UsageError
from infra.graph import Float32, Graph, Int64

COMPARED_USERS = 20_000
"""Users whose embeddings are compared, at most."""


_NONE = pa.array([], pa.string())
"""Values of an attribute that nobody has."""


@dataclass(frozen=True)
class Names:
    """What the codes of a graph stand for. attributes: name -> values by code. entities: one string each, by code."""

    attributes: Mapping[str, pa.Array]
    entities: pa.Array


@dataclass(frozen=True)
class Start:
    """A finished encoder: its folder, the graph it was trained on, and the names of that graph and of the new one."""

    folder: Path
    graph: Graph
    names: Names
    new_names: Names

    @cached_property
    def encoder(self) -> Encoder:
        return open_encoder(self.folder, torch.device("cpu"))

    @torch.no_grad()
    def into(self, encoder: Encoder, graph: Graph) -> dict[str, Any]:
        """Copies all weights that `encoder`, new and of `graph`, has in common with the old one; says how many rows.

        Raises UsageError for an encoder of another model or shape, naming what differs.
        """
        old = self.encoder
        self._refuse_other_shape(encoder)
        features = matching_rows(encoder.shape.vocabulary, self.new_names, old.shape.vocabulary, self.names)
        users = self.graph.rows_of(np.asarray(graph.ids[: encoder.vectors.num_embeddings]))
        users = np.where(users < 0, -1, users % old.vectors.num_embeddings)
        for name in ("features", "vectors"):
            rows = features if name == "features" else users
            known = np.flatnonzero(rows >= 0)
            getattr(encoder, name).weight[known] = getattr(old, name).weight[rows[known]]
        for new, before in zip(encoder.dense, old.dense, strict=True):
            new.copy_(before)
        return {"features": int((features >= 0).sum()), "users": int((users >= 0).sum())}

    def alignment(self, embedded: Float32, graph: Graph, seed: int, device: torch.device) -> dict[str, Any]:
        """How like the old embeddings the new ones are, float32 [N, D] of the past view of `graph`: see `agreement`."""
        before = embed(self.folder, self.graph, "past", device.type)
        rows = self.graph.rows_of(np.asarray(graph.ids))
        known = np.flatnonzero(rows >= 0)
        if len(known) > COMPARED_USERS:
            known = np.sort(np.random.default_rng([seed, 2]).choice(known, COMPARED_USERS, replace=False))
        return {"compared_users": len(known), **agreement(before[rows[known]], embedded[known])}

    def _refuse_other_shape(self, encoder: Encoder) -> None:
        old, new = _shape_of(self.encoder), _shape_of(encoder)
        other = [key for key in new if old[key] != new[key]]
        if other:
            raise UsageError(
                f"encoder.warm_start: {self.folder} has "
                + ", ".join(f"{key} {old[key]}, not {new[key]}" for key in other),
                "Name an encoder of the same shape, or set "
                + ", ".join(f"encoder.{key}={old[key]}" for key in other)
                + ".",
            )


def _shape_of(encoder: Encoder) -> dict[str, Any]:
    model = next(name for name, kind in MODELS.items() if type(encoder) is kind)
    shape = encoder.shape
    return {"model": model, "dimensions": shape.dimensions, "hidden": shape.hidden, "layers": shape.layers}


def matching_rows(new: Vocabulary, new_names: Names, old: Vocabulary, old_names: Names) -> Int64:
    """For each row of the new feature table the row of the old one that stands for the same, int64, -1 for none.

    Hashed values have no row of their own and match nothing.
    """
    found = np.full(new.rows, -1)
    old_first = np.concatenate([[0], np.cumsum(old.attribute_buckets)])
    first = 0
    for name, buckets in zip(new.attributes, new.attribute_buckets, strict=True):
        if name in old.attributes:
            at = old.attributes.index(name)
            known, wanted = (names.attributes.get(name, _NONE) for names in (old_names, new_names))
            _place(found, first, wanted[:buckets], known[: old.attribute_buckets[at]], int(old_first[at]))
        first += buckets
    entities = new_names.entities[: new.entity_buckets], old_names.entities[: old.entity_buckets]
    _place(found, new.first_entity, *entities, old.first_entity)
    found[new.first_count :] = old.first_count + np.arange(2 * COUNT_BUCKETS)
    return found


def _place(found: Int64, first: int, values: pa.Array, known: pa.Array, known_first: int) -> None:
    """Fills found[first:] with known_first + the place of each value in `known`, -1 where it is not there."""
    at = pc.index_in(values, value_set=known).fill_null(-1).to_numpy(zero_copy_only=False)
    found[first : first + len(at)] = np.where(at < 0, -1, at + known_first)


def agreement(before: Float32, after: Float32) -> dict[str, float | None]:
    """Mean cosine of unit rows [n, D] as they are, and once `before` is rotated onto `after`.

    The rotation is the orthogonal Procrustes solution (Schönemann, Psychometrika 1966) of every other row; both
    cosines are of the rows between, which it has not seen. None where there are fewer than two rows.
    """
    if len(before) < 2:
        return {"cosine": None, "aligned_cosine": None}
    left, _, right = np.linalg.svd(before[::2].T.astype(np.float64) @ after[::2])
    unseen, now = before[1::2], after[1::2]
    return {
        "cosine": float((unseen * now).sum(1).mean()),
        "aligned_cosine": float(((unseen @ (left @ right)) * now).sum(1).mean()),
    }
