"""The embed stage keeps its contract."""

from datetime import UTC, datetime

import numpy as np
import pytest

from infra.hashing import hash_arrays
from infra.settings import EncoderSettings, Settings
from jobs import embed, train_encoder
from jobs.context import Parent, StageContext
from tests.suites.planted import bare_graph, planted_graph

SETTINGS = Settings(encoder=EncoderSettings(dimensions=16, hidden=16, max_steps=20, batch_size=128))


def context(folder, kind, inputs):
    (folder / kind).mkdir()
    parents = {name: Parent(name, folder / name, "", {}) for name in inputs}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return StageContext(SETTINGS, now, "", parents, folder / kind, lambda: None, lambda line: None)


@pytest.mark.parametrize("graph", [planted_graph(), bare_graph(0), bare_graph(1)], ids=["planted", "empty", "one"])
def test_it_writes_unit_rows_of_both_views(tmp_path, graph):
    graph.save(tmp_path / "graph")
    train_encoder.run(context(tmp_path, "encoder", ["graph"]))
    result = embed.run(context(tmp_path, "embeddings", ["graph", "encoder"]))
    folder = tmp_path / "embeddings"
    views = {view: np.load(folder / f"{view}.npy", allow_pickle=False) for view in ("past", "now")}
    assert result.rows == graph.users
    assert result.content_hash == hash_arrays(views)
    assert sorted(p.name for p in folder.iterdir()) == ["now.npy", "past.npy"]
    for rows in views.values():
        assert rows.dtype == np.float32
        assert rows.shape == (graph.users, 16)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
