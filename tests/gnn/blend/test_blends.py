"""Promises of every blend."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

import gnn.blend.greedy
from gnn.blend.dpp import GreedyDPP
from gnn.blend.mmr import MaximalMarginalRelevance
from gnn.blend.protocol import Blend
from gnn.blend.spacing import SoftSpacing
from gnn.blend.ssd import SlidingSpectrum
from gnn.blend.utility import WeightedUtility
from tests.gnn.blend import brute

BLENDS: dict[str, Callable[[], Blend]] = {
    "ssd": lambda: SlidingSpectrum(0.5, None),
    "ssd, window 4": lambda: SlidingSpectrum(0.5, 4),
    "dpp": lambda: GreedyDPP(0.7, None),
    "dpp, window 4": lambda: GreedyDPP(0.7, 4),
    "mmr": MaximalMarginalRelevance,
    "spacing": lambda: SoftSpacing(0.2, 4),
    "utility": lambda: WeightedUtility([0.7, 0.3, 0.2, 0.1]),
}
RELEVANCE_ALONE: dict[str, Callable[[], Blend]] = {
    "ssd": lambda: SlidingSpectrum(0.0, 4),
    "dpp": lambda: GreedyDPP(0.7, 1),
    "mmr": lambda: MaximalMarginalRelevance(1.0),
    "spacing": lambda: SoftSpacing(0.0, 4),
    "utility": lambda: WeightedUtility([1.0, 0.0, 0.0, 0.0]),
}
every_blend = pytest.mark.parametrize("blend", [make() for make in BLENDS.values()], ids=list(BLENDS))
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(blend: Blend, users: int = 6, candidates: int = 12, seed: int = 0, filled: float = 0.8) -> Inputs:
    """Relevance, traits of the kind that `blend` takes, and a mask; all candidates differ."""
    draw = torch.Generator().manual_seed(seed)
    relevance = torch.rand(users, candidates, generator=draw)
    valid = torch.rand(users, candidates, generator=draw) < filled
    if isinstance(blend, SoftSpacing):
        return relevance, torch.randint(-1, 4, (users, candidates, 3), generator=draw), valid
    return relevance, normalize(torch.randn(users, candidates, 3, generator=draw), dim=2), valid


@every_blend
@settings(max_examples=25)
@given(seed=st.integers(0, 1000), candidates=st.integers(0, 9), picks=st.integers(0, 11))
def test_a_list_holds_valid_candidates_once_each_and_ends_when_they_do(blend, seed, candidates, picks) -> None:
    relevance, traits, valid = inputs(blend, 4, candidates, seed, filled=0.6)
    found = blend(relevance, traits, valid, picks)
    assert found.dtype == torch.int64
    assert found.shape == (4, picks)
    for row, allowed in zip(found.tolist(), valid, strict=True):
        held = min(picks, int(allowed.sum()))
        assert row[held:] == [-1] * (picks - held)
        assert len(set(row[:held])) == held
        assert all(allowed[i] for i in row[:held])


@every_blend
def test_a_batch_gives_what_its_users_give_one_at_a_time(blend: Blend) -> None:
    for case in brute.cases(shapes=10, users=8, seed=61):
        relevance, _, valid = case.relevance, case.embeddings, case.valid
        traits = _traits(blend, case)
        together = blend(relevance, traits, valid, case.picks)
        for i in range(len(relevance)):
            one = slice(i, i + 1)
            assert torch.equal(blend(relevance[one], traits[one], valid[one], case.picks)[0], together[i])


def _traits(blend: Blend, case: brute.Case) -> torch.Tensor:
    if isinstance(blend, SoftSpacing):
        return case.groups
    return case.groups.float() if isinstance(blend, WeightedUtility) else case.embeddings


@every_blend
def test_how_many_users_are_blended_at_a_time_changes_nothing(blend: Blend, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = *inputs(blend, users=7), 9
    whole = blend(*arguments)
    monkeypatch.setattr(gnn.blend.greedy, "BLOCK_BYTES", 3 * 12 * 3 * 8)
    assert torch.equal(blend(*arguments), whole)


@every_blend
def test_the_order_of_candidates_changes_nothing_but_positions(blend: Blend) -> None:
    relevance, traits, valid = inputs(blend)
    order = torch.randperm(relevance.shape[1], generator=torch.Generator().manual_seed(2))
    moved = blend(relevance[:, order], traits[:, order], valid[:, order], 12)
    back = torch.where(moved >= 0, order[moved.clamp_min(0)], -1)
    assert torch.equal(back, blend(relevance, traits, valid, 12))


@every_blend
def test_a_shorter_list_is_the_start_of_a_longer_one(blend: Blend) -> None:
    arguments = inputs(blend)
    longest = blend(*arguments, 12)
    for picks in range(12):
        assert torch.equal(blend(*arguments, picks), longest[:, :picks])


@every_blend
@pytest.mark.filterwarnings("ignore")  # of tracing: it is deprecated, and it fixes shapes
def test_a_traced_graph_picks_the_same_from_other_candidates(blend: Blend) -> None:
    traced = torch.jit.trace(lambda *three: blend(*three, 9), inputs(blend, seed=1), check_trace=False)
    arguments = inputs(blend, seed=2)
    assert torch.equal(traced(*arguments), blend(*arguments, 9))


@every_blend
def test_what_invalid_candidates_hold_does_not_matter(blend: Blend) -> None:
    relevance, traits, valid = inputs(blend)
    expected = blend(relevance, traits, valid, 12)
    noise = torch.full_like(traits, 7) if traits.dtype == torch.int64 else torch.full_like(traits, float("nan"))
    spoilt = torch.where(valid, relevance, torch.inf), torch.where(valid[:, :, None], traits, noise)
    assert torch.equal(blend(*spoilt, valid, 12), expected)


@every_blend
def test_equal_candidates_come_in_the_order_of_their_positions(blend: Blend) -> None:
    relevance, traits, valid = inputs(blend, users=5, candidates=1, filled=1)
    found = blend(relevance.expand(5, 30), traits.expand(5, 30, 3), valid.expand(5, 30), 30)
    assert found.tolist() == [list(range(30))] * 5


@pytest.mark.parametrize("name", RELEVANCE_ALONE)
def test_without_a_second_objective_picks_follow_relevance(name: str) -> None:
    blend = RELEVANCE_ALONE[name]()
    relevance, traits, valid = inputs(blend, filled=1)
    assert torch.equal(blend(relevance, traits, valid, 12), relevance.argsort(dim=1, descending=True))


@pytest.mark.parametrize("kind", [SlidingSpectrum, GreedyDPP, SoftSpacing])
def test_a_window_as_long_as_the_list_is_no_window(kind) -> None:
    arguments = inputs(kind(0.5, None))
    for picks in (5, 12):
        assert torch.equal(kind(0.5, picks)(*arguments, picks), kind(0.5, None)(*arguments, picks))


@pytest.mark.parametrize("name", ["ssd", "ssd, window 4", "dpp", "dpp, window 4", "mmr"])
def test_turning_all_embeddings_changes_nothing(name: str) -> None:
    blend = BLENDS[name]()
    relevance, embeddings, valid = inputs(blend)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))[0]
    assert torch.equal(blend(relevance, embeddings @ turn, valid, 6), blend(relevance, embeddings, valid, 6))


@pytest.mark.parametrize(
    ("relevance", "traits", "valid", "picks", "told"),
    [
        (torch.zeros(2), torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), 1, "relevance: float32 [2] is not float"),
        (torch.zeros(2, 3), torch.zeros(2, 4, 4), torch.ones(2, 3).bool(), 1, "does not fit relevance [2, 3]"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.ones(2, 3), 1, "valid: float32 [2, 3] is not bool"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), -1, "picks: -1"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), 1, "relevance: a valid"),
        (torch.zeros(2, 3), torch.full((2, 3, 4), torch.inf), torch.ones(2, 3).bool(), 1, "traits: a valid"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(relevance, traits, valid, picks, told) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below)
        MaximalMarginalRelevance()(relevance, traits, valid, picks)
    assert told in str(error.value)


@every_blend
def test_nobody_gets_no_list(blend: Blend) -> None:
    relevance, traits, valid = inputs(blend)
    assert blend(relevance[:0], traits[:0], valid[:0], 3).shape == (0, 3)
