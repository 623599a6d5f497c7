"""The train_encoder stage keeps its contract."""

import json
from datetime import UTC, datetime

from safetensors.numpy import load_file

from infra.hashing import hash_arrays
from infra.settings import EncoderSettings, Settings
from jobs import train_encoder
from jobs.context import Parent, StageContext
from tests.suites.planted import planted_graph

SETTINGS = Settings(encoder=EncoderSettings(dimensions=16, hidden=16, max_steps=20, batch_size=128))


def context(folder, data, inputs, settings=SETTINGS):
    data.mkdir()
    parents = {kind: Parent(kind, folder / kind, "", {}) for kind in inputs}
    return StageContext(settings, datetime(2026, 1, 1, tzinfo=UTC), "", parents, data, lambda: None, lambda line: None)


def test_it_writes_weights_and_shape_and_reports_the_curve(tmp_path):
    planted_graph().save(tmp_path / "graph")
    result = train_encoder.run(context(tmp_path, tmp_path / "encoder", ["graph"]))
    tensors = load_file(tmp_path / "encoder" / "encoder.safetensors")
    head = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert result.content_hash == hash_arrays(tensors)
    assert head["shape"]["users"] == 240
    assert head["shape"]["vocabulary"]["attributes"] == ["school", "colour"]
    assert result.metrics["device"] == "cpu"
    first, second = result.metrics["curve"][:2]
    assert first.keys() >= {"step", "hits20"}
    assert "loss" not in first, "before the first step there is none"
    assert second.keys() >= {"step", "loss", "hits20"}
    json.dumps(result.metrics)
    assert sorted(p.name for p in (tmp_path / "encoder").iterdir()) == ["encoder.json", "encoder.safetensors"]


def test_two_runs_have_one_content_hash(tmp_path):
    planted_graph().save(tmp_path / "graph")
    one, two = (train_encoder.run(context(tmp_path, tmp_path / name, ["graph"])) for name in ("one", "two"))
    assert one == two
