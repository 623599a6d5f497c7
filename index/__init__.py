"""Sharded approximate nearest-neighbour indexes, FAISS and ScaNN behind one small protocol."""
