"""Blending: which K of a user's scored candidates are shown, and in which order, when more than relevance counts.

Every module is a `gnn.blend.protocol.Blend`: batched over users, without state or parameters, and the same on every
call. Arithmetic is float64 inside, because what is left of a near-duplicate after projection has no digits in float32.
"""
