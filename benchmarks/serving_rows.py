"""Serving tables with generated rows, written by the real encoder and writer, and published as a release."""

from datetime import datetime
from pathlib import Path

import numpy as np

from infra.artifacts import Manifest, write_artifact
from infra.blob_writer import (
    Ragged,
    RankingColumns,
    encode_bars,
    encode_candidates,
    encode_neighbours,
    encode_rankings,
    encode_users,
)
from infra.kv import BARS, CANDIDATES, META, NEIGHBOURS, RANKINGS, USERS
from infra.lmdb_tables import LmdbWriter
from infra.releases import Release, ReleaseStore
from infra.serving_meta import HEAD_KEY, POPULAR_KEY, PRICE, ServingHead
from infra.settings import RulesSettings, ServingSettings
from infra.store import ObjectStore
from infra.times import format_time
from jobs.serving_blobs import paged_blobs
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES
from lookup_api.ranking.rules import CAPPED, caps_of

FIRST_ID, STEP = 10_000_000_097, 97
RANKED, STORED, FRIENDS, POPULAR, DIMENSIONS, ATTRIBUTES = 100, 150, 100, 500, 128, 6
BLOCK = 2000
PAGE, CAPS = ServingSettings().first_page, caps_of(RulesSettings())
TAG = "release"
"""Attribute of a reason that every item carries, whose value tells which tables an answer was read from."""


def user_ids(users: int) -> np.ndarray:
    """The ids of the generated users, int64 [users]."""
    return FIRST_ID + STEP * np.arange(users, dtype=np.int64)


def write_tables(
    folder: Path, users: int, tag: str, partitions: int = 2, seed: int = 17, vectors: np.ndarray | None = None
) -> str:
    """Full-sized rows for every user; `tag` is the value of a reason of every item. Returns the content hash.

    vectors float32 [users, DIMENSIONS]: embeddings, drawn where they are not given.
    """
    ids = user_ids(users)
    with LmdbWriter(folder, partitions) as writer:
        columns = (PAIR_FEATURES, (*USER_FEATURES, PRICE), ("dorm",) * ATTRIBUTES)
        head = ServingHead(users, *columns, CAPPED, DIMENSIONS).to_json()
        draw = np.random.default_rng([seed, users])
        popular = _rankings(ids, ids[:1], min(POPULAR, users - 1), tag, draw)
        values = np.concatenate([np.frombuffer(head, np.uint8), popular.data])
        writer.put(META, np.array([HEAD_KEY, POPULAR_KEY]), values, np.array([len(head), len(values)]))
        for start in range(0, users, BLOCK):
            keys = ids[start : start + BLOCK]
            draw = np.random.default_rng([seed, start])
            own = None if vectors is None else vectors[start : start + BLOCK]
            for table, blobs in _block(ids, keys, tag, draw, own).items():
                writer.put(table, keys, blobs.data, blobs.ends)
        return writer.finish()


def _block(ids, keys, tag, draw, vectors):
    n = len(keys)
    stored = Ragged.of_matrix(_others(ids, keys, STORED, draw))
    features = draw.random((n * STORED, len(PAIR_FEATURES)), np.float32).astype(np.float16)
    none = Ragged(np.zeros(0, np.int64), np.zeros(n, np.int64))
    return {
        RANKINGS: paged_blobs(_rankings(ids, keys, min(RANKED, len(ids) - 1), tag, draw), PAGE, CAPS),
        CANDIDATES: encode_candidates(stored, Ragged.of_matrix(draw.integers(1, 8, (n, STORED))), features),
        USERS: encode_users(
            draw.random((n, len(USER_FEATURES) + 1), np.float32),
            draw.integers(0, 99, (n, ATTRIBUTES)).astype(np.int32),
            none,
            (draw.random((n, DIMENSIONS), np.float32) if vectors is None else vectors).astype(np.float16),
        ),
        NEIGHBOURS: encode_neighbours(
            np.full(n, FRIENDS), Ragged.of_matrix(np.sort(_others(ids, keys, FRIENDS, draw), axis=1)), none
        ),
        BARS: encode_bars(none),
    }


def _others(ids, keys, k, draw):
    """Ids of other users, distinct in a row where there are enough: int64 [keys, k]."""
    row = (keys - FIRST_ID) // STEP
    step = draw.integers(1, max(2, (len(ids) - 1) // k), (len(keys), 1))
    return ids[(row[:, None] + step * np.arange(1, k + 1)) % len(ids)]


def _rankings(ids, keys, k, tag, draw):
    n = len(keys)
    scores = -np.sort(-draw.random((n, k), np.float32), axis=1)
    texts = [b'{"kind":"mutual_connections"}', _reason("same_attribute", TAG, tag)]
    texts += [_reason("same_affiliation", "school", str(i)) for i in range(4)]
    dictionary = np.frombuffer(b"\n".join(texts), np.uint8)
    shapes = np.array([[0, 2 + i, 1] for i in range(4)])
    return encode_rankings(
        RankingColumns(
            ids=Ragged.of_matrix(_others(ids, keys, k, draw)),
            scores=Ragged.of_matrix(scores),
            shape=Ragged.of_matrix(draw.integers(0, len(shapes), (n, k))),
            count=Ragged.of_matrix(draw.integers(1, 40, (n, k))),
            group_counts=Ragged.of_matrix(np.ones((n, k), np.uint8)),
            group_codes=Ragged.of_matrix(draw.integers(0, 20, (n, k))),
            group_rules=Ragged.of_matrix(np.tile(np.arange(20) % len(CAPPED), (n, 1))),
            shape_lengths=Ragged.of_matrix(np.full((n, len(shapes)), 3)),
            shapes=Ragged.of_matrix(np.tile(shapes.reshape(1, -1), (n, 1))),
            dictionary=Ragged.of_matrix(np.tile(dictionary, (n, 1))),
        )
    )


def _reason(kind: str, attribute: str, value: str) -> bytes:
    return f'{{"kind":"{kind}","attribute":"{attribute}","value":"{value}"}}'.encode()


def publish(store: ObjectStore, users: int, as_of: datetime, tag: str, seed: int = 17) -> Release:
    """Writes tables of `users` users as an artifact, makes a release of them and points CURRENT there."""
    release = make_release(store, users, as_of, tag, seed)
    ReleaseStore(store).publish(release)
    return release


def make_release(store: ObjectStore, users: int, as_of: datetime, tag: str, seed: int = 17) -> Release:
    """A release that is written but not yet named by CURRENT."""
    scratch = store.scratch()
    content_hash = write_tables(scratch / "data", users, tag, seed=seed)
    manifest = Manifest(
        kind="serving_tables",
        artifact_id=f"{as_of:%Y%m%dT%H%M%SZ}-{content_hash[:16]}",
        as_of=format_time(as_of),
        parents={},
        settings={},
        seed=seed,
        code_version="generated",
        rows=users,
        content_hash=content_hash,
        files=(),
    )
    return ReleaseStore(store).make({"serving_tables": write_artifact(store, scratch, manifest)})
