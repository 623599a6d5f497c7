"""What scores rows by a model of the registry, wherever the model is open: in this process, in another, in a fleet."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from infra.errors import PymkError
from infra.model_routes import ModelRef
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ranking.scorers import Array, Float32

ENOUGH_S = 0.02
"""With less time left than this when it was asked, a late answer speaks neither against a model nor against a leaf.
Those that are well need less (docs/leaves.md: 99 of 100 requests of 1,000 rows take 6 to 19 ms), and the lookup gives
more, unless its time was used up before."""


class Timed(NamedTuple):
    """scores float32 [n]. ms: that the model's own call took, without any wait for its turn, a load or a network."""

    scores: Float32
    ms: float


class LeafFailed(PymkError):
    """A model could not score here; others, or the same one elsewhere, may."""


class LeafAway(LeafFailed):
    """The leaf does not answer, or is left alone for a while."""


class LeafLost(LeafAway):
    """The leaf went while it had the request: of a fault of its own, or of the model."""


class LeafBusy(LeafFailed):
    """Too many requests wait to be scored, by this model or others."""


class ModelHangs(LeafFailed):
    """A call of the model has been running for longer than any may, and so no other is made."""


class LeafLate(TooLate):
    """The leaf gave no answer in time: it hangs, or the model is slow, which nobody here can tell apart."""


class TurnLate(TooLate):
    """The deadline passed while others were scored, or left the model hardly any time."""


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

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """The same, and in what time."""
        ...

    def close(self) -> None:
        """Ends what runs for it; no score is asked for afterwards."""
        ...


def refuse_late(model: str, ms: float, deadline: Deadline) -> None:
    """Raises TooLate where scores came after the deadline, though the call, of so many ms, began early enough; TurnLate
    where it did not."""
    over_s = -deadline.left_s
    if over_s > 0:
        kind = TooLate if ms / 1e3 - over_s >= ENOUGH_S else TurnLate
        raise kind(f"{model}: scored within {ms:.0f} ms, {over_s * 1e3:.0f} ms too late")
