"""The training loop: configuration, optimiser groups, schedule, accumulation, clipping."""

import copy
import math
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from data import IGNORE, load_pixels, load_samples
from network import Network, Output
from noise import random_key
from start import first_values
from teachers import Teacher

torch.use_deterministic_algorithms(True)
# The order of a sum depends on the number of threads.
torch.set_num_threads(1)

DEFAULTS = {
    "model": {"path": "llava", "adapter": None},
    "vra": {
        "enabled": True,
        "teacher": "dinov2",
        "objective": "cosine",
        "target": "teacher",
        "layers": [16],
        "weight": 0.5,
        "weight_schedule": "constant",
        "weight_end": 0.0,
        "projector_dim": 2048,
        "multiple_projectors": False,
        "use_projector": True,
        "projector_frozen": False,
        "only_coco": False,
        "pixel_norm": "native",
    },
    "ross": {
        "enabled": False,
        "vae": "flux-vae",
        "weight": 1.0,
        "layer": None,
        "masking": "every",
        "repeats": 4,
        "width": 1024,
        "depth": 3,
        "heads": 16,
    },
    "residual": {"enabled": False, "source": "post_projection", "layers": [16], "positions": "visual"},
    "lora": {
        "r": 128,
        "alpha": 256,
        "dropout": 0.05,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    },
    "data": {
        "train": "train.json",
        "images": "images",
        "template": "vicuna_v1",
        "qwen_supervise_final_eos": False,
        "image_aspect": "pad",
        "order": "group_by_modality_length",
    },
    "train": {
        "stage": "finetune",
        "method": "lora",
        "epochs": 1,
        "steps": 0,
        "batch": 16,
        "accumulation": 1,
        "lr": 2e-4,
        "projector_lr": 2e-5,
        "schedule": "cosine",
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "max_grad_norm": 0.0,
        "max_length": 2048,
        "precision": "bf16",
        "seed": 42,
    },
}


@dataclass
class Step:
    """One optimiser step; the names are those of `metrics.jsonl`."""

    step: int
    loss: float
    loss_lm: float
    loss_vra: float
    grad_norm: float
    lr: float
    lr_projector: float
    tokens: int
    supervised_tokens: int


def read_config(path: Path, assignments: Iterable[str] = ()) -> dict:
    """The configuration with defaults filled in, `section.key=value` assignments applied and paths made absolute."""
    config = copy.deepcopy(DEFAULTS)
    for given in [path.read_text(), *assignments]:
        for section, values in tomllib.loads(given).items():
            config.setdefault(section, {}).update(values)
    for section, key in [("model", "path"), ("model", "adapter"), ("vra", "teacher"), ("ross", "vae"), ("data", "train"), ("data", "images")]:
        if config[section][key] is not None:
            config[section][key] = str((path.parent / config[section][key]).resolve())
    fixed = [("data", "order", "sequential"), ("train", "schedule", "cosine"), ("train", "precision", "f32")]
    for section, key, value in fixed:
        assert config[section][key] == value, f"{section}.{key}: the reference knows {value!r} only"
    return config


class Trainer:
    network_type: type[Network] = Network

    def __init__(self, config: dict, adapter: Path | None = None, teacher: Teacher | None = None):
        self.options, self.data, self.vra = config["train"], config["data"], config["vra"]
        start = adapter or (config["model"]["adapter"] and Path(config["model"]["adapter"]))
        self.network = self.network_type(config, start, teacher)
        if start is None:
            first_values(self.network, config["train"]["seed"])
        tokenizer = Tokenizer.from_file(str(Path(config["model"]["path"]) / "tokenizer.json"))
        self.samples = load_samples(
            Path(self.data["train"]), tokenizer, self.data["template"], self.data["qwen_supervise_final_eos"]
        )
        global_batch = self.options["batch"] * self.options["accumulation"]
        assert len(self.samples) % global_batch == 0, "the end of an epoch must not split a step"
        self.steps = self.options["steps"] or self.options["epochs"] * len(self.samples) // global_batch
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.AdamW:
        """Four groups, {projector, rest} x {decay, no decay}; biases and norms do not decay."""
        o = self.options
        groups = []
        for lr, is_projector in [(o["lr"], False), (o["projector_lr"], True)]:
            for decay, is_exempt in [(o["weight_decay"], False), (0.0, True)]:
                parameters = [
                    parameter
                    for name, parameter in self.network.trainable().items()
                    if name.startswith("multi_modal_projector") == is_projector
                    and (name.endswith("bias") or name in self.norms()) == is_exempt
                ]
                groups.append({"params": parameters, "lr": lr, "peak": lr, "weight_decay": decay})
        return torch.optim.AdamW([g for g in groups if g["params"]], betas=tuple(o["betas"]), eps=o["eps"], foreach=False)

    def norms(self) -> set[str]:
        """Names of the trained tensors that belong to norms, told by their modules' types."""
        norms = [m for m in self.network.modules() if isinstance(m, (LlamaRMSNorm, torch.nn.LayerNorm))]
        ids = {id(parameter) for module in norms for parameter in module.parameters()}
        return {name for name, parameter in self.network.trainable().items() if id(parameter) in ids}

    def vra_weight(self, step: int) -> float:
        """From `weight` at the first step to `weight_end` at the last."""
        first, end, progress = self.vra["weight"], self.vra["weight_end"], step / max(self.steps - 1, 1)
        left = {"constant": 1, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
        kind = self.vra["weight_schedule"]
        return first if kind == "constant" else end + (first - end) * left[kind]

    def run(self) -> Iterator[tuple[Step, list[Output]]]:
        """Yields after the backward passes of each step and before the update; gradients are those before clipping."""
        o, parameters = self.options, self.network.trainable().values()
        for step in range(self.steps):
            # A parameter without gradient in a step still takes part in it, with gradient zero.
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            outputs = []
            for micro in range(o["accumulation"]):
                output = self.micro_batch(step * o["accumulation"] + micro)
                (output.loss / o["accumulation"]).backward()
                outputs.append(output)
            factor = schedule(step, self.steps, o["warmup_ratio"])
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in parameters]))
            mean = lambda name: sum(getattr(out, name).item() for out in outputs) / len(outputs)
            yield (
                Step(
                    step=step,
                    loss=mean("loss"),
                    loss_lm=mean("lm"),
                    loss_vra=mean("vra"),
                    grad_norm=norm.item(),
                    lr=o["lr"] * factor,
                    lr_projector=o["projector_lr"] * factor,
                    tokens=sum(sum(out.lengths) for out in outputs),
                    supervised_tokens=sum((out.labels != IGNORE).sum().item() for out in outputs),
                ),
                outputs,
            )
            if o["max_grad_norm"] > 0:
                torch.nn.utils.clip_grad_norm_(parameters, o["max_grad_norm"])
            self.optimizer.step()

    def micro_batch(self, index: int) -> Output:
        """Forward of the `index`-th micro-batch; the records are gone through in order, again and again."""
        first = index * self.options["batch"]
        samples = [self.samples[(first + i) % len(self.samples)] for i in range(self.options["batch"])]
        step, micro = divmod(index, self.options["accumulation"])
        key = random_key(self.options["seed"], step, micro)
        return self.network(samples, [self.pixels(sample.image) for sample in samples], self.vra_weight(step), key)

    def pixels(self, image: str | None) -> torch.Tensor | None:
        if image is None:
            return None
        return load_pixels(self.network.processor, Path(self.data["images"]) / image, self.data["image_aspect"])


def schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """Linear warm-up from 0, then half a cosine to 0."""
    warmup = math.ceil(warmup_ratio * steps)
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
