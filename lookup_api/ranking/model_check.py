"""What a model must show before anybody may route to it: it opens, its inputs exist, it scores its golden batch."""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import GateRefused, UsageError
from infra.model_golden import Golden, read_golden
from infra.model_reference import read_reference
from infra.model_spec import WEIGHTS, ModelSpec
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.scorers import KINDS, Float32, Scorer, open_scorer

SCORE, PRICES, EMBEDDING, ATTRIBUTES = "score", "price", "embedding", "attributes"
OF_LISTS = (SCORE, PRICES, EMBEDDING, ATTRIBUTES)
"""Further inputs of a model whose unit is a list, which runs after a ranker: the ranker's score, what exposure takes,
and what lists are made diverse by."""


def check_model(folder: Path, spec: ModelSpec, columns: Collection[str] = FEATURES) -> dict[str, Any]:
    """Rows of the golden batch and the largest difference from its scores, as a share of the largest score.

    columns: of the feature tables. Raises UsageError for what model.toml should say otherwise and for a reference that
    is none, CorruptArtifact for weights that do not open, and GateRefused for scores that are not those of the golden
    batch.
    """
    if spec.kind not in KINDS:
        raise UsageError(f"kind: {spec.kind!r}: no such kind of model ({folder})", f"Kinds: {', '.join(KINDS)}.")
    refuse_unknown(spec, columns)
    size = sum(path.stat().st_size for path in (folder / WEIGHTS).rglob("*") if path.is_file())
    if size > spec.resources.memory_bytes:
        what = f"resources.memory_bytes: {spec.resources.memory_bytes:,} is less than the {size:,} bytes of its weights"
        raise UsageError(f"{what} ({folder})", "Say what the model takes once it is loaded.")
    golden, _ = read_golden(folder, spec), read_reference(folder, spec)
    scorer = open_scorer(folder, spec)
    difference = _difference(scorer.score(golden.columns), golden.scores, spec)
    if spec.unit == "row":
        _refuse_neighbours(scorer, golden, spec)
    return {"rows": len(golden), "largest_difference": difference}


def refuse_unknown(spec: ModelSpec, columns: Collection[str]) -> None:
    """Raises UsageError for inputs that no feature table has, and for groups of people that are no int64."""
    known = {*columns, *(OF_LISTS if spec.unit == "list" else ())}
    for at, one in enumerate(spec.inputs):
        if one.name not in known:
            near = difflib.get_close_matches(one.name, known, 3, 0.5)
            fix = f"Nearest: {', '.join(near)}." if near else f"Known: {', '.join(columns)}."
            raise UsageError(f"inputs.{at}.name: {one.name!r}: is in no feature table", fix)
        if one.name == ATTRIBUTES and spec.unit == "list" and one.type != "int64":
            raise UsageError(f"inputs.{at}.type: {one.type}: does not hold {ATTRIBUTES}", 'Write type = "int64".')


def _difference(found: Float32, wanted: Float32, spec: ModelSpec) -> float:
    """Raises GateRefused where scores are not finite or differ by more than the model allows."""
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise GateRefused(
            f"{spec.name}: row {row} of the golden batch scores {found[row]}", "A score must be a finite number."
        )
    scale = max(float(np.abs(wanted).max()), 1e-30)
    off = np.abs(found.astype(np.float64) - wanted) / scale
    row = int(off.argmax())
    if off[row] > spec.tolerance:
        raise GateRefused(
            f"{spec.name}: row {row} of the golden batch scores {found[row]:.6g}, the batch says {wanted[row]:.6g}: "
            f"{off[row]:.2g} of the largest score, tolerance is {spec.tolerance:g}",
            "Check the order and the types of the inputs, or write the batch again with these weights.",
        )
    return float(off[row])


def _refuse_neighbours(scorer: Scorer, golden: Golden, spec: ModelSpec) -> None:
    """Raises GateRefused where a row's score depends on the rows beside it: requests could not be scored together."""
    first = {name: values[:1] for name, values in golden.columns.items()}
    rest = {name: values[1:] for name, values in golden.columns.items()}
    apart = np.concatenate([scorer.score(first), scorer.score(rest)])
    try:
        _difference(apart, golden.scores, spec)
    except GateRefused as error:
        what = f"{spec.name}: a row's score depends on the rows beside it ({error.what})"
        raise GateRefused(
            what, 'Write unit = "list" in model.toml, where all rows of a request are one list.'
        ) from None
