"""Writes tests/fixtures/objectives: every objective, residual, stage and method on one tiny model, a few keys apart.

`cases.json` has for each case `set`, the keys that differ from `config.toml`; `steps`, ten optimiser steps with `loss`, `loss_lm`,
`loss_vra` and `grad_norm`, and `loss_ross` where there is one; and `tensors`, for each trained tensor norm and checksum of step 0's gradient and of the final value. A
checksum is the sum of cos(i) x_i over the elements in row-major order: it tells a direction, where a norm does not.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from cases import record
from network import Network
from start import first_values
from toys import write_picture
from trainer import Trainer, read_config

CONFIG = """\
# What all cases of cases.json have in common. The picture of the third record is cut, so it takes no part in alignment.
[model]
path = "../gqa/llava"
[vra]
teacher = "../shared/dinov2"
layers = [2]
projector_dim = 24
[residual]
layers = [2]
[ross]
vae = "../shared/vae"
width = 16
depth = 2
heads = 2
repeats = 3
[lora]
r = 2
alpha = 4
dropout = 0.0
targets = ["q_proj", "v_proj"]
[data]
train = "train.json"
images = "images"
order = "sequential"
[train]
steps = 10
batch = 4
lr = 1e-3
projector_lr = 5e-4
warmup_ratio = 0.0
max_length = 80
precision = "f32"
[output]
dir = "run"
"""

LATE = "Count to five, or name a fruit below the yellow line; there are two circles."
RECORDS = [
    record("coco", "<image>\nWhat is in the picture?", "A red square.", image="coco/wide.png"),
    record("text", "Name a fruit.", "An apple."),
    record("late", LATE, "An apple.", "<image>\nAnd here?", "None.", image="coco/wide.png"),
    record("other", "Where is it?\n<image>", "On the left side.", image="vg/tall.png"),
]
CAPTIONS = [
    record("wide", "Describe it.\n<image>", "a red square beside a circle", image="coco/wide.png"),
    record("tall", "<image>\nWhat is this?", "two circles\nand a white stripe ", image="vg/tall.png"),
]

NO_VRA = "vra.enabled=false"
ROSS = "ross.enabled=true"
RESIDUAL = [NO_VRA, "residual.enabled=true"]
PRETRAIN = [NO_VRA, 'train.stage="pretrain"', 'data.template="plain"', 'data.image_aspect="square"']
CASES = {
    "encoder": ['vra.target="encoder"'],
    "post_projection": ['vra.target="post_projection"'],
    "relation": ['vra.objective="relation"'],
    "relation_of_states": ['vra.objective="relation"', "vra.use_projector=false"],
    "relation_of_layers": ['vra.objective="relation"', 'vra.target="encoder"', "vra.layers=[0, 3]", "vra.multiple_projectors=true"],
    "shared_projector": ["vra.layers=[0, 1, 2, 3]", 'vra.weight_schedule="cosine"', "vra.weight_end=2.0"],
    "frozen_projector": ["vra.projector_frozen=true", 'vra.weight_schedule="linear"', "vra.weight_end=0.1"],
    "only_coco": ["vra.only_coco=true"],
    "residual": [*RESIDUAL, 'data.template="qwen_2"', "train.max_length=512"],
    "residual_everywhere": [*RESIDUAL, 'residual.positions="all"', "residual.layers=[1, 3]"],
    "residual_before": [*RESIDUAL, 'residual.source="pre_projection"', "residual.layers=[1, 2]"],
    # Of two micro-batches of a step, one has a sample without a picture.
    "ross": [NO_VRA, ROSS, "train.batch=2", "train.accumulation=2", "train.max_length=512"],
    "ross_middle": [ROSS, "ross.layer=1", "ross.weight=0.5", 'data.train="captions.json"', "train.batch=2", "train.max_length=512"],
    # A sample without a picture, and one whose picture is cut.
    "ross_any": [NO_VRA, ROSS, 'ross.masking="any"', "ross.layer=2", "ross.repeats=2"],
    "ross_pretrain": [*PRETRAIN, ROSS, 'data.train="captions.json"', "train.batch=2"],
    "pretrain": [*PRETRAIN, 'data.train="captions.json"', "train.batch=2"],
    "full": [
        'train.method="full"',
        "train.weight_decay=0.1",
        'data.template="qwen_2"',
        "data.qwen_supervise_final_eos=true",
        "train.max_length=512",
    ],
}


def write_objectives(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    for name, records in [("train", RECORDS), ("captions", CAPTIONS)]:
        (folder / f"{name}.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    write_picture(folder / "images" / "coco" / "wide.png", 40, 24, seed=30)
    write_picture(folder / "images" / "vg" / "tall.png", 21, 36, seed=31)
    lines = [f"{json.dumps(name)}: {describe(folder / 'config.toml', keys)}" for name, keys in CASES.items()]
    (folder / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def describe(config: Path, keys: list[str]) -> str:
    """One case as JSON, a tensor or step a line."""
    trainer = Trainer(read_config(config, keys))
    parameters = trainer.network.trainable()
    steps, gradients = [], {}
    for step, outputs in trainer.run():
        numbers = [step.loss, step.loss_lm, step.loss_vra, step.grad_norm]
        if trainer.network.ross["enabled"]:
            numbers.append(sum(output.ross.item() for output in outputs) / len(outputs))
        steps.append(json.dumps([digits(x) for x in numbers]))
        gradients = gradients or {name: figures(parameter.grad) for name, parameter in parameters.items()}
    tensors = [f"{json.dumps(name)}: {json.dumps(gradients[name] + figures(p))}" for name, p in parameters.items()]
    join = ",\n   ".join
    return f'{{\n "set": {json.dumps(keys)},\n "steps": [{join(steps)}],\n "tensors": {{{join(tensors)}}}\n}}'


def figures(tensor: Tensor) -> list[float]:
    x = tensor.detach().double().flatten()
    return [digits(x.norm().item()), digits((torch.arange(len(x)).double().cos() * x).sum().item())]


def digits(x: float) -> float:
    return float(f"{x:.8g}")
