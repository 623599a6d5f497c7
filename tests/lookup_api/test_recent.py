"""Who joined since the night is found beside everybody else."""

from dataclasses import dataclass

import numpy as np

from lookup_api.ann import Float32, Found, merged
from lookup_api.deadline import Deadline
from lookup_api.recent import WithRecent


@dataclass
class Flat:
    """Brute force over people with ids."""

    people: dict[int, list[float]]
    missing: tuple[str, ...] = ()
    closed: bool = False

    def find(self, query: Float32, k: int, deadline: Deadline) -> Found:
        ids = np.array(list(self.people), np.int64)
        scores = (np.array(list(self.people.values()), np.float32) @ query).astype(np.float32)
        return merged([(ids, scores)], k, self.missing)

    def close(self) -> None:
        self.closed = True


def test_the_best_of_both_are_found_and_what_is_left_out_is_told() -> None:
    base, recent = Flat({1: [1, 0], 2: [0.5, 0], 3: [0, 1]}, ("shard 1",)), Flat({-9: [0.7, 0], 8: [0.1, 0]})
    both = WithRecent(base, recent)
    found = both.find(np.array([1, 0], np.float32), 3, Deadline.after(60))
    assert found.ids.tolist() == [1, -9, 2]
    assert found.left_out == both.missing == ("shard 1",)
    both.close()
    assert base.closed
    assert recent.closed
