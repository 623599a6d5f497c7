"""The pure ranking core: neighbourhood kernels, pair features, ranker inference, rules, reasons.

numpy and numba only. The nightly rank stage and a live request run the same functions, so that a precomputed
score and a live score agree.
"""
