"""Does PyTorch load what a first stage leaves, as the original LLaVA code would?

    python tests/reference/projector_load.py RUN/adapter

`mm_projector.bin` is read with `torch.load(weights_only=True)`, its tensors are compared with `mm_projector.safetensors`, and they fill
the original projector, two linear maps around a GELU, as `llava_arch.py` (`initialize_vision_modules`) does it.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

NAMES = {"0": "linear_1", "2": "linear_2"}


def main():
    adapter = Path(sys.argv[1])
    weights = torch.load(adapter / "mm_projector.bin", map_location="cpu", weights_only=True)
    expected = load_file(adapter / "mm_projector.safetensors")
    assert list(weights) == [f"model.mm_projector.{part}" for part in ("0.bias", "0.weight", "2.bias", "2.weight")], list(weights)
    own = {key.split("mm_projector.")[1]: value for key, value in weights.items()}
    for key, value in own.items():
        index, kind = key.split(".")
        assert torch.equal(value, expected[f"multi_modal_projector.{NAMES[index]}.{kind}"]), key
    hidden, features = own["0.weight"].shape
    projector = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    projector.load_state_dict(own, strict=True)
    mapped = torch.load(adapter / "mm_projector.bin", weights_only=True, mmap=True)
    assert all(torch.equal(mapped[key], value) for key, value in weights.items())
    print(f"{len(weights)} tensors, equal to mm_projector.safetensors, fill a projector from {features} to {hidden}")


main()
