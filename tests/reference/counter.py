"""Contents of tensors out of their names: the same numbers in Rust (`tests/support/counter.rs`), so no weights need be stored."""

import math

import numpy as np
import torch
from torch import Tensor


def uniform(name: str, count: int) -> np.ndarray:
    """Multiples of 2^-23 in [-1, 1): splitmix64 from the name's FNV-1a hash on, its upper 24 bits."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        x = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def content(name: str, shape: tuple[int, ...]) -> Tensor:
    """What the tensor of this canonical name holds: sizes that make every part of a network matter."""
    base, scale = distribution(name, shape)
    values = base + scale * uniform(name, math.prod(shape))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if name.endswith("lambda1"):
        return 0.5, 0.2
    if name.endswith("norm_mean"):
        return 0.45, 0.05
    if name.endswith("norm_std"):
        return 0.27, 0.05
    if "norm" in name and name.endswith("weight"):
        return 1.0, 0.2
    if name.endswith("bias"):
        return 0.0, 0.1
    if any(word in name for word in ("pos", "token", "class_embedding", "newline")):
        return 0.0, 0.8
    gain = 0.2 if "lora_B" in name else 1.0
    return 0.0, gain * math.sqrt(3 / math.prod(shape[1:]))


def probe(name: str, tensor: Tensor) -> list[float]:
    """Euclidean norm, and products with two random vectors: another tensor differs in one of them."""
    values = tensor.detach().double().flatten().numpy()
    numbers = [np.linalg.norm(values)] + [values @ uniform(f"probe.{k}.{name}", values.size) for k in range(2)]
    return [float(f"{number:.9g}") for number in numbers]
