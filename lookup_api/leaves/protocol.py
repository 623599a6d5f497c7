"""What scores rows by a model of the registry, wherever the model is open: in this process, in another, in a fleet."""

from collections.abc import Mapping
from typing import Protocol

from infra.errors import PymkError
from infra.model_routes import ModelRef
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ranking.scorers import Array, Float32


class LeafFailed(PymkError):
    """A model could not score here; others, or the same one elsewhere, may."""


class LeafAway(LeafFailed):
    """The leaf does not answer, or is left alone for a while."""


class LeafLost(LeafAway):
    """The leaf went while it had the request: of a fault of its own, or of the model."""


class LeafBusy(LeafFailed):
    """Too many requests wait to be scored, by this model or others."""


class TurnLate(TooLate):
    """The deadline passed while others were scored."""


class ModelLoading(TooLate):
    """The deadline passed while the model was loaded, which goes on."""


class Leaf(Protocol):
    """Safe to use from any thread."""

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        """Scores float32 [n]; higher is better.

        columns: [n], or [n, width] of a wide one, by name of the input: at least those that the model names, others
        are ignored, and the default of model.toml stands for one that is left out. All have as many rows. Raises
        NotFound for a model that the registry lacks, TooLate where the deadline passes, LeafFailed where the model
        cannot be opened or fails, and UsageError for columns whose shape is not the input's.
        """
        ...

    def close(self) -> None:
        """Ends what runs for it; no score is asked for afterwards."""
        ...
