"""Stage build_index: nearest-neighbour indexes over the embeddings of both views, in shards.

Whole (`ctx.shard` is None), one shard (an artifact `index_shard`, for Airflow's task mapping), or put together from
inputs `index_shard/0`, `index_shard/1`, …; the content hash is the same for all ways.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from index.effort import RECALL_K
from index.recall import recall_at, sampled_rows
from index.sharded import IDS, IndexSpec, ShardedIndex, build_shard, finish, shard_folder, shard_hash, shard_vectors
from infra.errors import CorruptArtifact
from infra.graph import open_array
from infra.hashing import ContentHash, hash_arrays
from jobs.ann_figures import size_bytes
from jobs.context import StageContext, StageResult

VIEWS = ("past", "now")
SHARD_INPUT = "index_shard/"


def run(ctx: StageContext) -> StageResult:
    """Builds or puts together the index, and measures its recall@100 on `now`."""
    settings = ctx.settings
    spec = IndexSpec.from_settings(settings.index, settings.run.seed)
    vectors = {view: open_array(ctx.inputs["embeddings"].path / f"{view}.npy") for view in VIEWS}
    rows = len(vectors["now"])
    if ctx.shard is not None:
        hashes = _build(ctx, spec, vectors, [ctx.shard])
        return StageResult(
            len(range(ctx.shard, rows, spec.shards)), _joint_hash(hashes), {"bytes": size_bytes(ctx.data)}
        )
    if any(name.startswith(SHARD_INPUT) for name in ctx.inputs):
        _put_together(ctx, spec, vectors)
    else:
        _build(ctx, spec, vectors, list(range(spec.shards)))
    hashes = {view: finish(ctx.data / view, spec) for view in VIEWS}
    ids = open_array(ctx.inputs["graph"].path / "ids.npy")
    np.save(ctx.data / "now" / IDS, ids)  # serving answers in ids
    content_hash = _joint_hash(hashes | {IDS: hash_arrays({IDS: ids})})
    return StageResult(rows, content_hash, _measure(ctx, vectors["now"]))


def _build(ctx: StageContext, spec: IndexSpec, vectors: dict[str, Any], shards: list[int]) -> dict[str, str]:
    """Builds shards of both views, one thread each, run.threads at once. Content hashes by view and shard."""
    work = [(view, shard) for view in VIEWS for shard in shards]

    def build(view: str, shard: int) -> str:
        head = build_shard(vectors[view], spec, shard, ctx.data / view)
        ctx.progress(f"index {view}: shard {shard + 1} of {spec.shards}, {head.rows} rows")
        return head.content_hash

    with ThreadPoolExecutor(min(ctx.settings.run.threads, len(work))) as pool:
        done = [pool.submit(build, *one) for one in work]
        return {f"{view}/{shard}": one.result() for (view, shard), one in zip(work, done, strict=True)}


def _put_together(ctx: StageContext, spec: IndexSpec, vectors: dict[str, Any]) -> None:
    """Links the shards that other tasks built into ctx.data, each checked against these vectors and settings."""
    for shard in range(spec.shards):
        parent = ctx.inputs.get(f"{SHARD_INPUT}{shard}")
        if parent is None:
            known = sum(name.startswith(SHARD_INPUT) for name in ctx.inputs)
            fix = "Build every shard with the same index.shards before they are put together."
            raise CorruptArtifact(f"index shard {shard} is missing: {known} of {spec.shards} are there", fix)
        hashes = {f"{v}/{shard}": shard_hash(shard_vectors(vectors[v], spec, shard), spec, shard) for v in VIEWS}
        if parent.content_hash != _joint_hash(hashes):
            what = f"{parent.path}: index shard {shard} is not of these embeddings and settings"
            raise CorruptArtifact(what, "Build the shard again.")
        for view in VIEWS:
            _link_tree(shard_folder(parent.path / view, shard), shard_folder(ctx.data / view, shard))


def _link_tree(source: Path, target: Path) -> None:
    """Hard links, or copies where the file system cannot link: a shard is large and never written again."""
    if not source.is_dir():
        raise CorruptArtifact(f"{source}: missing", "Build the shard again.")

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copyfile(a, b)

    shutil.copytree(source, target, copy_function=link)


def _measure(ctx: StageContext, now: Any) -> dict[str, Any]:
    """recall@100 on `now` and size. Low recall is told here and refused by the gate `ann` when it comes to publish."""
    options, threads = ctx.settings.index, ctx.settings.run.threads
    index = ShardedIndex.open(ctx.data / "now", threads=threads)
    queries = sampled_rows(len(now), options.recall_queries, ctx.settings.run.seed)
    recall = recall_at(index, now, queries, RECALL_K)
    if recall < options.min_recall:
        fix = "Raise index.target_recall, or choose another index.backend, or lower index.min_recall."
        if options.store == "int8":
            fix = f"Set index.store to float32: no search finds more than int8 keeps. {fix}"
        what = f"index ({options.backend}): recall@{RECALL_K} is {recall:.4f}, index.min_recall is {options.min_recall}"
        ctx.progress(f"build_index: warning: {what}. {fix}")
    return {"recall_at_100": recall, "bytes": size_bytes(ctx.data), "structures": sorted(set(index.structures))}


def _joint_hash(hashes: dict[str, str]) -> str:
    digest = ContentHash()
    for name in sorted(hashes):
        digest.text(name, hashes[name])
    return digest.hexdigest()
