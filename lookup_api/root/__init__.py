"""The root: what models need of a viewer and of people is read once, and each model is sent what it names."""
