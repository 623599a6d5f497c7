"""What a model says of itself: the file model.toml, parsed once into frozen typed values.

Inputs are named and ordered: a model gets exactly these columns, in this order, of these types, and where a value is
missing or older than it may be, the default.
"""

import json
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, model_validator

from infra.artifacts import check_name, is_artifact_id, is_name
from infra.errors import UsageError

FILE = "model.toml"
WEIGHTS = "weights"
"""Folder of the files that the model's kind reads."""
InputType = Literal["float16", "float32", "int32", "int64", "uint8"]
Unit = Literal["row", "list"]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """One column, or `width` of them under one name, such as an embedding.

    default: of each value that is missing or stale; NaN where the model itself knows missing values. max_age_s: seconds
    after which a value is stale; None for a value that stays true.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    type: InputType = "float32"
    width: Annotated[int, Field(ge=1, le=4096)] = 1
    default: float = 0.0
    max_age_s: Annotated[float, Field(gt=0)] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.type)

    @model_validator(mode="after")
    def _default_fits(self) -> "InputSpec":
        if self.dtype.kind == "f":
            fits = not math.isfinite(self.default) or abs(self.default) <= float(np.finfo(self.dtype).max)
        else:
            limits = np.iinfo(self.dtype)
            fits = self.default.is_integer() and limits.min <= self.default <= limits.max
        if not fits:
            raise ValueError(f"default {self.default} does not fit {self.type}")
        return self

    @field_serializer("default", when_used="json")
    def _default_as_json(self, value: float) -> float | str:
        """JSON has no NaN."""
        return value if math.isfinite(value) else str(value)

    def defaults(self, rows: int) -> npt.NDArray[Any]:
        """The default `rows` times, [rows] or [rows, width]."""
        return np.full(rows if self.width == 1 else (rows, self.width), self.default, self.dtype)


class Resources(_Part):
    """What a model needs while it scores: cores, bytes of memory once loaded, and the most rows of one call."""

    cpu: Annotated[float, Field(gt=0, le=64)] = 1.0
    memory_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    max_rows: Annotated[int, Field(ge=1, le=1 << 20)] = 4096


class ModelSpec(_Part):
    """The content of model.toml.

    version: derived from the content where none is given. kind: how the weights are read (lookup_api.ranking.models).
    objective: what a higher score means, such as `befriend`. unit: `row` where a row's score does not depend on those
    beside it, so that requests may be scored together; `list` where all rows of a request are one list. pinned: stays
    loaded wherever it was loaded. tolerance: by which scores of the golden batch may differ, relative to the largest.
    """

    name: Text
    version: Text | None = None
    kind: Text
    objective: Text
    output: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "score"
    unit: Unit = "row"
    pinned: bool = False
    tolerance: Annotated[float, Field(gt=0, le=0.01)] = 1e-5
    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1, max_length=4096)]
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _names(self) -> "ModelSpec":
        if not is_name(self.name) or is_artifact_id(self.name):
            raise ValueError(f"name {self.name!r} is no name of a model: use letters, digits, '.', '_' and '-'")
        if self.version is not None and not is_name(self.version):
            raise ValueError(f"version {self.version!r} is none: use letters, digits, '.', '_' and '-'")
        names = [one.name for one in self.inputs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or self.output in names:
            raise ValueError(f"{', '.join(twice) or self.output}: named twice among inputs and output")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return tuple(one.name for one in self.inputs)

    @property
    def width(self) -> int:
        """Values of a row, all inputs together."""
        return sum(one.width for one in self.inputs)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's inputs as they are stored and sent."""
        return sum(one.width * one.dtype.itemsize for one in self.inputs)

    def values(self) -> dict[str, Any]:
        """As JSON values; NaN and infinite defaults as text."""
        return self.model_dump(mode="json")

    def to_toml(self) -> str:
        """The file, written again."""
        values = self.model_dump()
        resources, inputs = values.pop("resources"), values.pop("inputs")
        lines = [*_lines(values), "", "[resources]", *_lines(resources)]
        for one in inputs:
            lines += ["", "[[inputs]]", *_lines(one)]
        return "\n".join(lines) + "\n"


def check_model_name(name: str) -> str:
    """The name itself; raises UsageError unless it is one of a model."""
    if is_artifact_id(name):
        raise UsageError(f"{name!r}: is the id of an artifact", "Give the model a name of its own.")
    return check_name(name, "name of a model")


def read_spec(folder: Path) -> ModelSpec:
    """Parses model.toml of a model's folder. Raises UsageError that names the key, the value and the rule."""
    path = folder / FILE
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "A model is a folder with model.toml; see docs/models.md.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", "docs/models.md shows a whole one.") from None
    return parse_spec(values, str(path))


def parse_spec(values: Any, where: str) -> ModelSpec:
    """Raises UsageError for values that are not those of a model.toml."""
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            "; ".join(_told(one) for one in error.errors()) + f" ({where})", "See docs/models.md."
        ) from None


def _told(one: Any) -> str:
    """`inputs.3.default: 'x': input should be a valid number`."""
    key = ".".join(str(part) for part in one["loc"])
    said = one["msg"].removeprefix("Value error, ")
    if one["type"] == "extra_forbidden":
        return f"{key}: no such key"
    if one["type"] == "missing":
        return f"{key}: is missing"
    if not key or one["type"] == "value_error":
        return f"{key}: {said}" if key else said
    return f"{key}: {one['input']!r}: {said[:1].lower()}{said[1:]}"


def _lines(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]


def _toml(value: Any) -> str:
    """JSON's text, numbers and truth values are TOML's too, but for numbers that JSON lacks and one character."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
