"""Leaves: where models of the registry score, in this process or in others, behind one protocol."""
