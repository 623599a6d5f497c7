"""Nearest neighbours by inner product: FAISS and ScaNN behind one protocol, in shards that are built one by one.

`backend.py` is the protocol, one module a backend implements it, `sharded.py` cuts, searches and merges, `recall.py`
measures against exact search. FAISS and ScaNN are loaded at first use, so that importing this package is cheap and a
process may fork before they start threads.
"""
