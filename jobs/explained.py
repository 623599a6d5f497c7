"""What explanations are made of: rows of a release, named features, and why somebody is left out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

Answer = dict[str, Any]


def matching_rows(folder: Path, wanted: pc.Expression) -> pa.Table:
    """The rows of a parted table that match; parts without any are skipped by their statistics."""
    parts = sorted(folder.glob("part-*.parquet"))
    return ds.dataset(parts, format="parquet").to_table(filter=wanted) if parts else pa.table({})


def of_pair(user_id: int, candidate_id: int) -> pc.Expression:
    return (pc.field("user_id") == user_id) & (pc.field("candidate_id") == candidate_id)


def of_user(user_id: int) -> pc.Expression:
    return pc.field("user_id") == user_id


def with_rank(answer: Answer, row: Mapping[str, Any]) -> Answer:
    shown = {"shown": True, "rank": row["rank"], "score": row["score"], "reasons": row["reasons"]}
    summary = f"shown at rank {row['rank']} with score {row['score']:.4f}"
    if "sources" not in answer:
        summary += "; from the popular list, as the user has no candidates"
    return answer | shown | {"left_out_by": None, "summary": summary}


def left_out(answer: Answer, by: Mapping[str, Any]) -> Answer:
    summary = f"left out by {by['stage']}, rule {by['rule']}: {by['detail']}"
    return answer | {"left_out_by": dict(by), "summary": summary}


def by_rule(stage: str, rule: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "rule": rule, "detail": detail, **more}


def below_the_cut(place: int, candidates: int, score: float, ranked: pa.Table) -> dict[str, Any]:
    """The place a candidate has among the candidates of a user, beyond the people ranked, who may be nobody."""
    kept, least = ranked.num_rows, f"{pc.min(ranked['score']).as_py():.4f}" if ranked.num_rows else "none"
    detail = f"place {place} of {candidates} candidates by score, {score:.4f}; {kept} are kept, the last with {least}"
    return by_rule("rank", "below_the_cut", detail, place=place, kept=kept, would_be_score=float(score))


def named(names: Sequence[str], values: Any) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}
