"""torch and torch-geometric, and nowhere else: neighbour sampling, the encoder, its training, embedding."""
