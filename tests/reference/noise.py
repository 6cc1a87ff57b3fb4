"""The program's random numbers: functions of the run's seed, the micro-batch, the stream's name and an element's position."""

import numpy as np
import torch
from torch import Tensor

M32, M64 = 2**32 - 1, 2**64 - 1


def random_key(seed: int, step: int, index: int) -> int:
    """Of the `index`-th micro-batch of an optimiser step: 31 bits, mixed as in splitmix64."""
    x = seed ^ (step * 0x9E3779B97F4A7C15 & M64) ^ (index * 0xD1B54A32D192ED03 & M64)
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & M64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & M64
    return x >> 33


def uniform(key: int, stream: str, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 2^-24 in [0, 1): two rounds of the PCG output permutation of the element's number in row-major order."""
    salt = 0x811C9DC5
    for byte in stream.encode():
        salt = (salt ^ byte) * 0x01000193 & M32
    counter = np.arange(np.prod(shape), dtype=np.uint32)
    bits = pcg(pcg(counter) + np.uint32(key + (salt >> 1)))
    return ((bits >> np.uint32(8)) / 2**24).reshape(shape)


def normal(key: int, stream: str, shape: tuple[int, ...]) -> Tensor:
    """Box and Muller's transform of two streams."""
    radius = np.sqrt(-2 * np.log(1 - uniform(key, f"{stream}.radius", shape)))
    angle = 2 * np.pi * (uniform(key, f"{stream}.angle", shape) - 0.5)
    return torch.from_numpy((radius * np.cos(angle)).astype(np.float32))


def below(count: int, key: int, stream: str, samples: int) -> Tensor:
    """Whole numbers from 0 on and below `count`; the product is rounded to f32 as on a device."""
    x = uniform(key, stream, (samples,)).astype(np.float32) * np.float32(count)
    return torch.from_numpy(x.astype(np.int64))


def pcg(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        state = x * np.uint32(747796405) + np.uint32(2891336453)
        word = ((state >> ((state >> np.uint32(28)) + np.uint32(4))) ^ state) * np.uint32(277803737)
    return (word >> np.uint32(22)) ^ word
