"""Where a candidate came from: one bit a source, kept beside the candidate through ranking and explaining."""

TWO_HOP = 1
WALK = 2
ANN = 4
AFFILIATION = 8
POPULAR = 16
JOINT_WALK = 32

NAMES = {
    TWO_HOP: "two_hop",
    WALK: "walk",
    ANN: "ann",
    AFFILIATION: "affiliation",
    POPULAR: "popular",
    JOINT_WALK: "joint_walk",
}
"""Name of each bit, as shown by `pymk explain` and counted in metrics."""


def names_of(bits: int) -> tuple[str, ...]:
    """Names of the sources set in `bits`, lowest bit first."""
    return tuple(name for bit, name in NAMES.items() if bits & bit)
