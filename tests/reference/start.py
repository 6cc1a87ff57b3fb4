"""The first values of trained tensors as the program draws them: they depend on the seed, the name and the shape alone."""

import numpy as np
import torch
from torch import nn


class Random:
    """A named stream of values: the 32-bit Mersenne twister, seeded with the folded FNV-1a hash of the name."""

    def __init__(self, seed: int, name: str):
        state = 0xCBF29CE484222325 ^ seed
        for byte in name.encode():
            state = (state ^ byte) * 0x100000001B3 % 2**64
        self.twister = np.random.RandomState((state ^ state >> 32) % 2**32)._bit_generator

    def uniform(self, count: int, bound: float) -> np.ndarray:
        return (self.twister.random_raw(count) / 2.0**31 - 1) * bound

    def normal(self, count: int, std: float) -> np.ndarray:
        """Sums of four uniform values."""
        raw = self.twister.random_raw(4 * count).astype(np.float64) - 2.0**31
        return raw.reshape(count, 4).sum(-1) * (std * 3**0.5 / 2**32)


@torch.no_grad()
def first_values(network: nn.Module, seed: int) -> None:
    """LoRA as PEFT initialises it, new modules as the reference's loader does; everything else is the model's."""
    for name, parameter in network.new_tensors().items():
        name = name.removeprefix("base_model.model.")
        if name.endswith("pos_embed"):
            continue  # a table
        if name.endswith("lora_A.weight"):
            value = Random(seed, name).uniform(parameter.numel(), 1 / parameter.shape[1] ** 0.5)
        elif name.endswith("bias") or name.endswith("lora_B.weight") or "adaLN" in name or "final_layer" in name:
            value = np.zeros(parameter.numel())
        elif name.startswith("denoiser") and "t_embedder" not in name and "z_embedder" not in name:
            bound = (6 / sum(parameter.shape[:2])) ** 0.5  # Xavier's
            value = Random(seed, name).uniform(parameter.numel(), bound)
        else:
            value = Random(seed, name).normal(parameter.numel(), 0.02)
        parameter.copy_(torch.from_numpy(value.astype(np.float32)).reshape(parameter.shape))
