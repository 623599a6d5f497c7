"""model.toml says what a model needs, or what is wrong with it, and is the same again once written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import UsageError
from infra.model_spec import InputSpec, ModelSpec, Resources, check_model_name, parse_spec, read_spec
from tests.suites.model_folders import small_spec

VALUES: dict[str, Any] = {
    "name": "small",
    "kind": "onnx",
    "objective": "befriend",
    "inputs": [{"name": "walk"}, {"name": "embedding", "type": "float16", "width": 8, "default": float("nan")}],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"name": ""}, "name"),
        ({"name": "../a"}, "no name of a model"),
        ({"name": "20260101T000000Z-0123456789abcdef"}, "no name of a model"),
        ({"version": "a/b"}, "version 'a/b'"),
        ({"colour": 1}, "colour: no such key"),
        ({"unit": "user"}, "unit: 'user'"),
        ({"tolerance": 1}, "tolerance: 1"),
        ({"output": "walk"}, "walk: named twice"),
        ({"inputs": [{"name": "walk"}, {"name": "walk"}]}, "walk: named twice"),
        ({"inputs": [{"name": "a"}, {"type": "int32"}]}, "inputs.1.name: is missing"),
        ({"inputs": [{"name": "a", "type": "int32", "default": 0.5}]}, "inputs.0: default 0.5 does not fit int32"),
        ({"inputs": [{"name": "a", "type": "uint8", "default": -1}]}, "default -1.0 does not fit uint8"),
        ({"inputs": [{"name": "a", "type": "float16", "default": 1e6}]}, "does not fit float16"),
        ({"inputs": [{"name": "a", "type": "int32", "default": float("nan")}]}, "does not fit int32"),
        ({"inputs": [{"name": "a", "max_age_s": 0}]}, "inputs.0.max_age_s: 0"),
        ({"inputs": [{"name": "a", "width": 0}]}, "inputs.0.width: 0"),
        ({"resources": {"cpu": 0}}, "resources.cpu: 0"),
        ({"resources": {"memory": 1}}, "resources.memory: no such key"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=r"a/model\.toml") as caught:
        parse_spec(VALUES | change, "a/model.toml")
    assert said in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [(None, "no such file"), ("name = ", "not TOML"), ("\udcff", "not TOML")])
def test_a_file_that_is_none_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "model.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=said):
        read_spec(tmp_path)


@given(
    st.builds(
        InputSpec,
        name=st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
        type=st.sampled_from(["float32", "float16"]),
        width=st.integers(1, 99),
        default=st.floats(width=16),
        max_age_s=st.none() | st.floats(1, 1e9),
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.booleans(),
)
def test_a_spec_written_and_read_again_is_the_same(one: InputSpec, objective: str, pinned: bool) -> None:
    import tomllib

    spec = ModelSpec(
        name="a", kind="onnx", objective=objective, pinned=pinned, output="zz_out", inputs=(one,),
        resources=Resources(cpu=0.5, memory_bytes=7),
    )  # fmt: skip
    for again in (parse_spec(tomllib.loads(spec.to_toml()), ""), parse_spec(spec.values(), "")):
        np.testing.assert_array_equal(again.inputs[0].default, one.default)
        whole = [s.model_copy(update={"inputs": (one.model_copy(update={"default": 0.0}),)}) for s in (spec, again)]
        assert whole[0] == whole[1]


def test_bytes_of_a_row_are_those_of_its_columns() -> None:
    spec = parse_spec(VALUES, "")
    assert (spec.columns, spec.width, spec.row_bytes) == (("walk", "embedding"), 9, 4 + 16)
    defaults = spec.inputs[1].defaults(3)
    assert (defaults.shape, defaults.dtype, np.isnan(defaults).all()) == ((3, 8), np.float16, True)
    assert small_spec().inputs[0].defaults(2).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".a", "a b", "20260101T000000Z-0123456789abcdef", "a\0"])
def test_what_cannot_be_a_name_never_becomes_a_path(name: str) -> None:
    with pytest.raises(UsageError):
        check_model_name(name)
