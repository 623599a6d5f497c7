"""Models that rank lists at night, and when a canary is taken off for it: where it does not open, gives no numbers, or
scores otherwise than when it was pushed, by the bounds of live requests and with the mark that a worker sets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from infra.audit import who
from infra.errors import GateRefused, NotFound, PymkError, StoreError, UsageError
from infra.model_golden import read_golden
from infra.model_routes import ModelRef, RouteStore, without_canary
from infra.models import ModelVersion, Registry
from infra.store import ObjectStore
from infra.times import format_time
from jobs.scoring import Float32
from lookup_api.canary_guard import Bounds, Guard
from lookup_api.ranking.routed import OfFeatures
from lookup_api.ranking.scoring import RanksPairs

InHand = Callable[[bool], None]
"""Told True before a model's own code runs, and False after it."""


class Unfit(PymkError):
    """A model does not open, does not score, or, a canary, scores otherwise than when it was pushed."""


@dataclass(frozen=True)
class Sound:
    """A model whose every failure is Unfit, a score that is no finite number too."""

    model: RanksPairs
    in_hand: InHand

    def score(self, matrix: Float32) -> Float32:
        """As RanksPairs. Raises Unfit."""
        with own_fault("cannot score", self.in_hand):
            scores = self.model.score(matrix)
        if scores.shape != (len(matrix),) or not np.isfinite(scores).all():
            raise Unfit(f"scores {list(scores.shape)} of {len(matrix)} rows, or some that are not finite")
        return scores


@dataclass(frozen=True)
class Routed:
    """A model of the registry, open. guard: for what it scores, the pairs of each user as one request."""

    version: ModelVersion
    model: Sound
    guard: Guard

    @classmethod
    def open(cls, store: ObjectStore, ref: ModelRef, bounds: Bounds, in_hand: InHand) -> "Routed":
        """Raises Unfit, and what is no fault of the model's: StoreError, OSError, and UsageError for one of lists."""
        with own_fault("cannot be opened", in_hand):
            version, folder = Registry(store).open(ref.name, ref.version)
        if version.spec.unit != "row":
            raise UsageError(f"{ref}: scores lists: it is no ranker")
        with own_fault("cannot be opened", in_hand):
            golden = read_golden(folder, version.spec).scores
            model = OfFeatures.open(folder, version.spec)
        return cls(
            version, Sound(model, in_hand), Guard(golden, bounds, clock=lambda: 0.0)
        )  # one window for the whole night


def refuse_drift(guard: Guard) -> None:
    """Raises Unfit where what was scored is out of bounds; fewer users than `models.canary_requests` tell nothing."""
    if why := guard.verdict():
        raise Unfit(why)


@contextmanager
def own_fault(what: str, in_hand: InHand) -> Iterator[None]:
    """Whatever a model dies of within the block is Unfit, but not a store or a disk that fails, or memory that is
    short."""
    in_hand(True)
    try:
        yield
    except Exception as error:
        if isinstance(error, (StoreError, OSError, MemoryError)) and not isinstance(error, NotFound):
            raise
        raise Unfit(f"{what}: {error}") from error
    finally:
        in_hand(False)


def taken_off(store: ObjectStore, surface: str, model: ModelRef, release_id: str, error: Unfit) -> GateRefused:
    """Takes a canary off for everybody, if it can; what is then to be told."""
    why, at = f"lists of {release_id}: {error}", format_time(datetime.now(UTC).replace(microsecond=0))
    try:
        after = RouteStore(store).change(surface, without_canary(model, why, at), at, who())
    except (PymkError, OSError) as failure:
        done = f"could not be taken off ({failure}): `pymk model route {surface} --canary none` does"
    else:
        noted = after.has_stopped(model)
        done = "is taken off" if noted and noted.at == at else "is not routed any more"
    fix = "Push a version with golden rows like those of a night; `pymk model route --force` brings this one back."
    return GateRefused(f"canary {model} of {surface} {done}; {why}", fix)
