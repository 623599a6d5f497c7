"""The encoders by the names that `encoder.model` knows."""

from gnn.graph_sage import GraphSage
from gnn.model import Encoder
from gnn.residual_propagation import ResidualPropagation

MODELS: dict[str, type[Encoder]] = {
    "residual_propagation": ResidualPropagation,
    "graph_sage": GraphSage,
}
