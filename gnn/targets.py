"""Which friendships are learnt, in which order, and how many friends are heard for them."""

import numpy as np

from infra.graph import Csr, Int64
from infra.settings import EncoderSettings

EPOCHS = 8
"""Times that a friendship is a target at most: small graphs are learnt by heart long before max_steps."""
MESSAGES = 200_000
"""Sampled messages a mini-batch up to which the fanout is raised."""
RAISED_FANOUT = 4
"""The fanout is raised to this multiple of the setting at most."""


def targets_wanted(connections: Csr, settings: EncoderSettings) -> int:
    """Friendships that a full run learns, counted as often as they are a target."""
    return min(settings.max_steps * settings.batch_size, EPOCHS * (connections.entries // 2))


def friendships_to_learn(connections: Csr, wanted: int, seed: int) -> Int64:
    """At most `wanted` friendships in random order, both ways round with equal chance, again and again if few: [2, M].

    int64; each friendship appears floor or ceil of wanted / friendships times.
    """
    row = np.repeat(np.arange(connections.rows), connections.degrees())
    forward = np.flatnonzero(row < connections.indices)
    draw = np.random.default_rng([seed, 0])
    rounds = [draw.permutation(forward) for _ in range(-(-wanted // len(forward)) if len(forward) else 0)]
    chosen = np.concatenate(rounds)[:wanted] if rounds else forward
    pairs = np.stack([row[chosen], connections.indices[chosen].astype(np.int64)])
    flip = draw.random(len(chosen)) < 0.5
    pairs[:, flip] = pairs[::-1, flip]
    return np.ascontiguousarray(pairs)


def fanouts_of(settings: EncoderSettings, users: int) -> list[int]:
    """Fanout of each layer: the setting, half of it past the first layer; more where the graph is so small that the
    messages of a batch still fit MESSAGES, up to RAISED_FANOUT times the setting."""
    seeds, affordable = min(users, 3 * settings.batch_size), 1
    for fanout in range(RAISED_FANOUT * settings.fanout, 1, -1):
        listeners, messages = seeds, 0
        for _ in range(settings.layers):
            messages += listeners * fanout
            listeners = min(users, listeners * (1 + fanout))
        if messages <= MESSAGES:
            affordable = fanout
            break
    deeper = max(-(-settings.fanout // 2), affordable)
    return [max(settings.fanout, affordable), *[deeper] * (settings.layers - 1)]
