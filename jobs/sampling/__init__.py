"""A generated social network: who people are, whom they befriend, and what else the lake records about them."""
