"""What is held out of the past view: by time where times exist, else by a hash of the pair, the same in any order."""

import numpy as np
import pytest

from infra.graph import NO_DAY, Csr
from jobs.past_view import canonical_pairs, choose_cutoff, held_out_entries, keep_entries
from jobs.seeded import seeded_uniform


def symmetric(pairs: list[tuple[int, int]], days: list[int], users: int) -> Csr:
    both = np.array(pairs + [(b, a) for a, b in pairs])
    return Csr.from_pairs(users, both[:, 0], both[:, 1], np.array(days * 2, np.int32))


def brute_force_cutoff(days: list[int], share: float) -> int | None:
    """Tries every day; of equally close ones the later, which holds out less."""
    known = sorted({day for day in days if day != NO_DAY})
    shares = {day: sum(d >= day for d in days) / len(days) for day in known}
    allowed = [day for day in known if shares[day] <= 0.3]
    return min(allowed, key=lambda day: (round(abs(shares[day] - share), 9), -day), default=None)


@pytest.mark.parametrize("seed", range(20))
def test_the_cutoff_equals_a_search_over_all_days(seed: int) -> None:
    draw = np.random.default_rng(seed)
    days = draw.integers(0, draw.integers(4, 40), 200).astype(np.int32)
    days[:15] = NO_DAY
    assert choose_cutoff(days, 0.1) == brute_force_cutoff(days.tolist(), 0.1)


@pytest.mark.parametrize(
    ("days", "cutoff"),
    [
        ([], None),
        ([1, 2] * 10, None),  # two days are no history
        ([NO_DAY] * 2 + list(range(8)), None),  # a fifth carries no time
        ([NO_DAY, *range(1, 10)], 9),
        ([1, 2] + [3] * 8, None),  # the newest day alone is most of it
        ([1] * 4 + [2] * 4 + [3] * 2, 3),
        ([1] * 90 + [2] * 2 + [3] * 8, 2),
        ([-5] * 17 + [-4, -3, -2], -3),  # before 1970
    ],
)
def test_the_newest_slice_is_cut_where_it_is_closest_to_a_tenth(days: list[int], cutoff: int | None) -> None:
    assert choose_cutoff(np.array(days, np.int32), 0.1) == cutoff


def test_held_out_friendships_are_gone_from_both_sides_of_past() -> None:
    friends = symmetric([(0, 1), (0, 2), (1, 3), (2, 3)], [5, 9, 9, int(NO_DAY)], 4)
    held = held_out_entries(friends, np.arange(4), 9, 0.1, 17)
    pairs, days = canonical_pairs(friends, held)
    assert pairs.tolist() == [[0, 2], [1, 3]]
    assert days.tolist() == [9, 9]
    past = keep_entries(friends, ~held)
    assert past.degrees().tolist() == [1, 1, 1, 1]
    assert past.indices.tolist() == [1, 0, 3, 2]
    assert np.asarray(past.values).tolist() == [5, 5, NO_DAY, NO_DAY]
    assert len(canonical_pairs(friends)[1]) == 4


def test_a_seeded_hold_out_follows_the_pair_not_its_place() -> None:
    ids = np.arange(-300, 300) * 7_000_000_001
    pairs = [(a, b) for a in range(600) for b in range(a + 1, min(a + 11, 600))]
    friends = symmetric(pairs, [0] * len(pairs), 600)
    held = held_out_entries(friends, ids, None, 0.1, 17)
    chosen = {tuple(pair) for pair in ids[canonical_pairs(friends, held)[0]].tolist()}
    assert len(chosen) / len(pairs) == pytest.approx(0.1, abs=0.02)
    assert held.sum() == 2 * len(chosen), "both directions agree"
    fewer = ids[100:]  # other users, so that every row differs
    kept = [(a - 100, b - 100) for a, b in pairs if a >= 100]
    again = symmetric(kept, [0] * len(kept), 500)
    held_again = held_out_entries(again, fewer, None, 0.1, 17)
    chosen_again = {tuple(pair) for pair in fewer[canonical_pairs(again, held_again)[0]].tolist()}
    assert chosen_again == {pair for pair in chosen if pair[0] >= fewer[0]}


def test_splitmix_gives_the_published_numbers() -> None:
    """The first outputs of SplitMix64 from state 0: 0xE220A8397B1DCDAF (Vigna's splitmix64.c)."""
    first = 0xE220A8397B1DCDAF
    state = np.array([-(2**64 - first) if first >= 2**63 else first], np.int64)
    # The seed's own draw is the generator's first output; a key equal to it cancels it, and draws that output again.
    assert seeded_uniform(0, state)[0] == (first >> 11) * 2.0**-53


def test_seeds_and_keys_draw_evenly_and_apart() -> None:
    keys = np.arange(20_000)
    one, two = seeded_uniform(1, keys), seeded_uniform(2, keys)
    assert np.histogram(one, 10, (0, 1))[0] == pytest.approx(np.full(10, 2000), abs=200)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03
    assert (seeded_uniform(1, keys[::-1])[::-1] == one).all()
    assert (seeded_uniform(1, keys, keys + 1) != seeded_uniform(1, keys + 1, keys)).all()
