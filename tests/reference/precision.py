"""Writes networks/precision.json and networks/nf4.safetensors: what storing numbers in fewer bits does to training.

precision.json has the cases of combinations.py's form, all on one model, whose rows are whole blocks of 64:

* `f32`: as it is;
* `bf16`: everything is bfloat16 as in the original recipe, but for logits and their loss, and the optimiser's copy of what is trained;
* `q8`, `nf4`: the language model's matrices quantised and dequantised, other frozen matrices rounded to bfloat16, arithmetic in f32.

nf4.safetensors has matrices with the codes, scales and numbers that bitsandbytes makes of them.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from combinations import CONFIG, PARTS, dump, fill_teacher, probe_training, write_llava
from network import Network, Output
from trainer import Trainer, read_config

TEXT, ENCODER, TEACHER = "blocks", "clip", "dinov2"
LINEARS = re.compile(r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj(\.base_layer)?\.weight")


class Bf16(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16()


class HalfNetwork(Network):
    """All in bfloat16; trained tensors are f32 and rounded where they are used."""

    def __init__(self, *args):
        super().__init__(*args)
        trained = [
            (module, name)
            for module in self.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        ]
        self.bfloat16()
        self.teacher.model.bfloat16()
        self.llava.lm_head.register_forward_hook(lambda module, inputs, output: output.float())
        for module, name in trained:
            module.get_parameter(name).data = module.get_parameter(name).data.float()
            register_parametrization(module, name, Bf16(), unsafe=True)

    def tensors(self) -> dict[str, nn.Parameter]:
        return {name.replace("parametrizations.", "").removesuffix(".original"): x for name, x in super().tensors().items()}

    def forward(self, samples: list, pixels: list[Tensor | None], vra_weight: float) -> Output:
        return super().forward(samples, [None if x is None else x.bfloat16() for x in pixels], vra_weight)


class HalfTrainer(Trainer):
    network_type = HalfNetwork


def q8(x: Tensor) -> Tensor:
    """Signed bytes with a scale for each 64, the largest magnitude over 127."""
    blocks = x.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    return ((blocks / scale).round().clamp(-127, 127) * scale).reshape(x.shape)


def nf4(x: Tensor) -> Tensor:
    return dequantize_4bit(*quantize_4bit(x.contiguous(), blocksize=64, quant_type="nf4"))


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


# Rounding of the language model's matrices and of other frozen ones, and the keys that ask for it.
MODES: dict[str, tuple[Callable, Callable, str]] = {
    "f32": (lambda x: x, lambda x: x, ""),
    "bf16": (rounded, rounded, 'precision = "bf16"'),
    "q8": (q8, rounded, 'base = "q8"'),
    "nf4": (nf4, rounded, 'base = "nf4"'),
}


def write_precision(folder: Path, base: Path) -> None:
    """`base` is the folder of the case whose data are used."""
    cases = {}
    for mode, (linear, other, keys) in MODES.items():
        # What the reference reads knows neither key: it does what they ask for here.
        plain = config = CONFIG.format(vra="", steps=12)
        if keys.startswith("base"):
            config = plain.replace("[vra]", f"{keys}\n[vra]")
        elif keys:
            config = plain.replace('precision = "f32"', keys)
        with tempfile.TemporaryDirectory() as temporary:
            case = Path(temporary)
            write_llava(case / "llava", TEXT, ENCODER, base)
            for file in ("train.json", "images"):
                (case / file).symlink_to((base / file).resolve())
            (case / "config.toml").write_text(plain)
            trainer_type = HalfTrainer if mode == "bf16" else Trainer
            settings = read_config(case / "config.toml")
            settings["model"]["adapter"] = None
            trainer = trainer_type(settings, teacher=fill_teacher(PARTS["teacher"][TEACHER]))
            store(trainer.network, linear, other)
            figures = probe_training(trainer)
        cases[mode] = {"text": TEXT, "encoder": ENCODER, "teacher": TEACHER, "config": config} | figures
    (folder / "precision.json").write_text(dump(cases) + "\n")
    save_file(quantised(), folder / "nf4.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def store(network: Network, linear: Callable, other: Callable) -> None:
    """Replaces frozen matrices by what is stored of them."""
    for name, parameter in network.llava.named_parameters():
        if not parameter.requires_grad and parameter.dim() == 2 and "position_embedding" not in name:
            name = name.removeprefix("base_model.model.")
            parameter.copy_((linear if LINEARS.fullmatch(name) else other)(parameter))
    for parameter in network.teacher.model.parameters():
        if parameter.dim() == 2:
            parameter.copy_(other(parameter))


def quantised() -> dict[str, Tensor]:
    torch.manual_seed(4)
    result = {}
    for index, scale in enumerate([1e-3, 1.0, 300.0]):
        x = torch.randn(6, 128) * scale
        codes, state = quantize_4bit(x, blocksize=64, quant_type="nf4")
        result[f"{index}.matrix"] = x
        result[f"{index}.codes"] = codes.flatten()
        result[f"{index}.scales"] = state.absmax
        result[f"{index}.numbers"] = dequantize_4bit(codes, state)
    return result
