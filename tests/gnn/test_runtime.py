"""Torch runs where the settings say, or says what to change."""

import pytest
import torch

from gnn.runtime import device_of
from infra.errors import PymkError


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_names_the_setting() -> None:
    with pytest.raises(PymkError, match=r"encoder.device: cuda, but torch finds no GPU .*Set encoder.device to auto"):
        device_of("cuda")
    assert device_of("auto").type == "cpu"


def test_the_cpu_is_always_there() -> None:
    assert device_of("cpu").type == "cpu"
