from pathlib import Path

import pytest

from infra.errors import UsageError
from infra.settings import OTHER_VARIABLES, Settings, load


def test_later_sources_win_and_origins_are_known(tmp_path: Path) -> None:
    file = tmp_path / "pymk.toml"
    file.write_text("[index]\nshards = 3\nrerank = 50\n[rank]\nper_user = 20\n")
    settings, origins = load(
        file, {"index.shards": "5"}, {"PYMK_INDEX__SHARDS": "4", "PYMK_RANK__PER_USER": "30", "HOME": "/"}
    )
    assert (settings.index.shards, settings.index.rerank, settings.rank.per_user) == (5, 50, 30)
    assert origins == {
        "index.shards": "--set index.shards",
        "index.rerank": str(file),
        "rank.per_user": "PYMK_RANK__PER_USER",
    }


def test_a_tuple_setting_is_split_at_commas() -> None:
    settings, _ = load(None, {"rules.school_attributes": "school, dorm"}, {})
    assert settings.rules.school_attributes == ("school", "dorm")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"index.shards": "0"}, r"index\.shards: '0': .*greater than or equal to 1 \(--set index\.shards\)"),
        ({"index.backend": "annoy"}, r"index\.backend: 'annoy': .*'exact', 'hnsw'"),
        ({"index.shard": "2"}, r"index\.shard: no such setting .*known: backend, shards"),
        ({"nothing.x": "2"}, r"nothing: no such setting"),
        ({"shards": "2"}, r"--set shards: is not section\.key"),
        ({"run.seed": "9" * 20}, r"run\.seed: '9+': .*less than or equal to 2147483647"),
        ({"index.rerank": "9" * 23}, r"index\.rerank: '9+': .*less than or equal to 1000000"),
        ({"encoder.learning_rate": "inf"}, r"encoder\.learning_rate: 'inf': .*finite number"),
        ({"index.min_recall": "nan"}, r"index\.min_recall: 'nan': .*finite number"),
        ({"spark.memory": "0g"}, r"spark\.memory: '0g': .*match pattern"),
        ({"run.seed": "abc"}, r"run\.seed: 'abc': .*integer"),
        ({"leaves.addresses": "a:1,10.0.0.7"}, r"leaves\.addresses: '10\.0\.0\.7': is not host:port; .*\(--set leaves"),
        ({"ladder.ann_shards": "http://a:1"}, r"ladder\.ann_shards: 'http://a:1': is not host:port"),
    ],
)
def test_an_error_names_the_key_the_value_the_rule_and_the_origin(flags: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(None, flags, {})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such settings file"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[index\n")
    with pytest.raises(UsageError, match=r"broken\.toml: not TOML"):
        load(broken)
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory\. Give a TOML file"):
        load(tmp_path)


def test_every_number_is_bounded() -> None:
    """A number without an end comes out as an overflow deep in a library."""
    for name in Settings.model_fields:
        for key, field in type(getattr(Settings(), name)).model_fields.items():
            bounds = [kind for bound in field.metadata for kind in ("le", "lt") if hasattr(bound, kind)]
            assert bounds or field.annotation not in (int, float), f"{name}.{key}"


def test_a_variable_that_only_looks_like_a_setting_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    own = dict.fromkeys(OTHER_VARIABLES, "x")
    settings, _ = load(None, None, own | {"PYMK_INDEX__SHARDS": "3"})
    assert (settings.index.shards, caplog.messages) == (3, [])
    settings, _ = load(None, None, {"PYMK_INDEX_SHARDS": "77", "PYMK_PORT": "tcp://10.0.0.1"})
    assert settings == Settings()
    misspelt, other = caplog.messages
    assert "PYMK_INDEX_SHARDS: is no setting and is ignored" in misspelt
    assert misspelt.endswith("PYMK_INDEX__SHARDS")
    assert "PYMK_PORT: is no setting and is ignored" in other


def test_every_setting_has_a_meaning() -> None:
    for name in Settings.model_fields:
        for key, field in type(getattr(Settings(), name)).model_fields.items():
            assert field.description, f"{name}.{key}"
            assert field.description.endswith("."), f"{name}.{key}"
