"""One training run: the loop, early stopping, what is kept of it for a restart, and what is reported of it."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnn.batches import FriendshipLoader, subgraph
from gnn.embed import embed_rows
from gnn.inputs import Inputs
from gnn.model import Encoder
from gnn.objective import NEGATIVES_GROUP, Objective
from gnn.optimise import RowAdam
from gnn.processes import Processes
from gnn.runtime import mixed_precision
from gnn.sampler import CsrSampler, Share
from gnn.targets import fanouts_of
from gnn.training_state import Saved, StateFile, UnfitState, named, restore, tensors_of, unfit, unfit_memory, unnamed
from gnn.validate import Validation
from infra.errors import CorruptArtifact
from infra.graph import Int64
from infra.settings import EncoderSettings

TABLE_RATE = 1.0
"""Step size of the tables, as a multiple of that of the dense weights."""
LONELY_SHARE = 0.1
"""Share of a mini-batch's users who hear nobody, so that profiles alone learn to place a new user."""
VALIDATIONS = 12
"""Validations in a full run."""
MIN_VALIDATION_PAIRS = 200
"""Fewer held-out pairs than this are mostly noise, and training runs to the end."""
STATE_STEPS = 500
"""Steps between two states that are kept, at most; one is kept after each validation."""


@dataclass
class Standing:
    """Where a run stands after `step` steps. losses: of the steps since the last validation."""

    step: int = 0
    best: float = 0.0
    best_step: int = 0
    stale: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """See the module's text. processes: this one and those it trains with; state: where the run is kept, if it is.

    watch: is told the number and the loss of every step.
    """

    def __init__(
        self,
        encoder: Encoder,
        inputs: Inputs,
        validation: Validation,
        settings: EncoderSettings,
        processes: Processes,
        state: StateFile | None,
        progress: Callable[[str], None],
        watch: Callable[[int, float], None] = lambda step, loss: None,
    ) -> None:
        self.encoder, self.inputs, self.validation, self.settings = encoder, inputs, validation, settings
        self.processes, self.state, self.progress, self.watch = processes, state, progress, watch
        self.standing = Standing()
        self._objective = Objective(inputs, processes.device)
        rate = settings.learning_rate
        self._dense = torch.optim.AdamW(encoder.dense, lr=rate)
        self._tables = RowAdam(encoder.tables, lr=TABLE_RATE * rate)
        self._kept = encoder.state_dict()

    def learn(self, pairs: Int64) -> None:
        """Trains on friendships [2, M] in their order, from where an earlier run of the same kind stood."""
        batch, count = self.settings.batch_size, pairs.shape[1]
        interval = -(-count // (batch * VALIDATIONS))
        found = self._saved()
        if not found:
            self.standing.best = self._validated(None)
            self._keep()
        now = found.head["step"] if found else 0
        loader = iter(FriendshipLoader(self._sampler(), pairs[:, now * batch :], batch))
        if found:  # the iterator has drawn from torch's generator, whose state this puts back
            self._restore(found)
        for data in loader:
            now += 1
            self.standing.losses.append(self._one_step(data, min(batch, count - (now - 1) * batch)))
            self.standing.step = now
            self.watch(now, self.standing.losses[-1])
            if now % interval == 0 and self._is_over():
                break
            if now % interval == 0 or now % STATE_STEPS == 0:
                self._save()
        if self._can_stop:
            self.encoder.load_state_dict(self._kept)
        else:
            self.standing.best_step = self.standing.step

    def metrics(self) -> dict[str, Any]:
        return {
            "steps": self.standing.step,
            "best_step": self.standing.best_step,
            "early_stopping": self._can_stop,
            "validation_pairs": self.validation.pairs,
            "precision": self.settings.precision,
            "curve": self.standing.curve,
        }

    @property
    def _can_stop(self) -> bool:
        return self.validation.pairs >= MIN_VALIDATION_PAIRS

    def _sampler(self) -> CsrSampler:
        share = Share(self.processes.rank, self.processes.count, NEGATIVES_GROUP)
        fanouts = fanouts_of(self.settings, self.inputs.users)
        return CsrSampler(self.inputs.connections, fanouts, True, LONELY_SHARE, share)

    def _one_step(self, data: Data, batch: int) -> float:
        """One optimiser step on a mini-batch of `batch` friendships, of which `data` is this process's share."""
        for optimiser in (self._dense, self._tables):
            optimiser.zero_grad()
        loss = 0.0
        if data.edge_label_index.numel():
            with mixed_precision(self.processes.device, self.settings.precision):
                embedded = self.encoder(subgraph(self.inputs, data, self.processes.device))
            share = self._objective.loss(embedded, data, batch)
            share.backward()
            loss = float(share.detach())
        self.processes.sum_gradients(self.encoder.dense, self.encoder.tables)
        nn.utils.clip_grad_norm_(self.encoder.dense, 1.0)
        for optimiser in (self._dense, self._tables):
            optimiser.step()
        return self.processes.sum(loss)

    def _is_over(self) -> bool:
        """Validates; whether patience is at its end."""
        standing = self.standing
        gain = self._validated(float(np.mean(standing.losses)))
        standing.losses = []
        if gain > standing.best:
            standing.best, standing.stale, standing.best_step = gain, 0, standing.step
            self._keep()
        else:
            standing.stale += 1
        return self._can_stop and standing.stale >= self.settings.patience

    def _validated(self, loss: float | None) -> float:
        """loss: mean of the steps since the last validation; None before the first of them."""
        point: dict[str, float] = {"step": self.standing.step}
        if loss is not None:
            point["loss"] = round(loss, 6)
        if self.validation.pairs and self.processes.is_first:
            self.encoder.eval()
            point |= self.validation.measure(embed_rows(self.encoder, self.inputs))
            self.encoder.train()
            told = "" if loss is None else f"loss {loss:.4f}, "
            self.progress(f"step {self.standing.step}: {told}validation hits@20 {point['hits20']:.4f}")
        self.standing.curve.append(point)
        return self.processes.from_first(point.get("gain", 0.0))

    def _keep(self) -> None:
        """The weights of now are the best so far."""
        if self._can_stop:
            self._kept = copy.deepcopy(self.encoder.state_dict())

    def _save(self) -> None:
        if not self.state or not self.processes.is_first:
            return
        tensors = {"torch_rng": torch.get_rng_state(), **named("encoder", self.encoder.state_dict())}
        if self._can_stop and self.standing.best_step != self.standing.step:
            tensors |= named("best", self._kept)
        tensors |= tensors_of(self._dense, "dense") | tensors_of(self._tables, "tables")
        self.state.save(Saved(tensors, asdict(self.standing)))

    def _saved(self) -> Saved | None:
        """The state to go on from, if there is one that fits; says why where one does not."""
        try:
            found = self.state.load() if self.state else None
            if found:
                self._refuse_unfit(found)
            return found
        except (CorruptArtifact, UnfitState) as error:
            self.progress(f"{error.what}; training starts anew")
            return None

    def _refuse_unfit(self, saved: Saved) -> None:
        """Before anything of it is taken over: a state that only half fits must change nothing."""
        assert self.state
        weights = self.encoder.state_dict()
        expected = {"torch_rng": torch.get_rng_state(), **named("encoder", weights)}
        if unnamed("best", saved.tensors):
            expected |= named("best", weights)
        why = unfit(saved.tensors, expected)
        why = why or unfit_memory(self._dense, "dense", saved.tensors)
        why = why or unfit_memory(self._tables, "tables", saved.tensors)
        if saved.head.keys() != {field.name for field in fields(Standing)}:
            why = f"its head has {', '.join(sorted(saved.head))}"
        if why:
            raise UnfitState(f"{self.state.path}: not a state of this encoder: {why}")

    def _restore(self, saved: Saved) -> None:
        self.standing = Standing(**saved.head)
        self.encoder.load_state_dict(unnamed("encoder", saved.tensors))
        self._kept = self._on_device(unnamed("best", saved.tensors))
        if not self._kept:
            self._keep()
        restore(self._dense, "dense", saved.tensors)
        restore(self._tables, "tables", saved.tensors)
        torch.set_rng_state(saved.tensors["torch_rng"])
        self.progress(f"goes on from step {self.standing.step}")

    def _on_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.processes.device) for name, tensor in tensors.items()}
