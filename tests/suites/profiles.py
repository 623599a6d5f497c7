"""Embeddings by profile alone, as somebody who has not made a friend yet is embedded."""

import numpy as np
import numpy.typing as npt

from gnn.embed import embed_rows
from gnn.inputs import Inputs
from gnn.model import Encoder
from infra.graph import Csr, Float32, Int32


def embed_profile(
    encoder: Encoder, attribute_codes: Int32, affiliations: Csr, entity_kind: npt.NDArray[np.int16]
) -> Float32:
    """Unit embeddings of n users without friends, in the graph or not: float32 [n, D].

    attribute_codes int32 [A, n] and affiliations (n rows) are coded as in the encoder's graph.
    """
    users = affiliations.rows
    weights = encoder.feature_weights.cpu().numpy()
    inputs = Inputs.from_parts(
        encoder.shape.vocabulary, weights, attribute_codes, affiliations, entity_kind, Csr.empty(users)
    )
    return embed_rows(encoder, inputs)
