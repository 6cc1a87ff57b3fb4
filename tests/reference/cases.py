"""The committed cases: models, conversations, configurations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from toys import LlavaShape, TeacherShape, write_autoencoder, write_llava, write_picture, write_teacher

# The table is made for 4 x 4 patches: used as it is at 56 pixels, resampled at 70.
TEACHER = TeacherShape(hidden=32, layers=2, heads=2, image=56)

# Two halvings, one of them with more channels behind it; as FLUX's it has no convolution behind the encoder.
AUTOENCODER = {
    "block_out_channels": [4, 8, 8], "layers_per_block": 1, "norm_num_groups": 2, "latent_channels": 2,
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
    "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
}  # fmt: skip

GQA = LlavaShape(
    hidden=64, intermediate=80, layers=3, heads=4, kv_heads=2,
    clip_hidden=32, clip_intermediate=48, clip_layers=3, clip_heads=2, image=56,
)  # fmt: skip
MHA = LlavaShape(
    hidden=32, intermediate=56, layers=3, heads=2, kv_heads=2,
    clip_hidden=32, clip_intermediate=48, clip_layers=3, clip_heads=2, image=70, rms_eps=1e-6, rope_theta=500.0,
)  # fmt: skip


@dataclass
class Case:
    """One folder: `config.toml`, what it names and does not share with another case, and what training it must give."""

    name: str
    config: str
    # Writes models and pictures into the folder; none for a case that borrows another one's.
    make: Callable[[Path], None] | None = None
    records: list[dict] = field(default_factory=list)
    adapter_seed: int | None = None
    # Replaces PEFT's `target_modules` in the written adapter, to have both of its forms.
    target_list: bool = False
    # Whether tensors are kept in full, beside norms and losses.
    full: bool = False


def record(name: str, *turns: str, image: str | None = None, first: str = "human") -> dict:
    """A LLaVA record with alternating turns."""
    roles = ("human", "gpt") if first == "human" else ("gpt", "human")
    conversations = [{"from": roles[i % 2], "value": value} for i, value in enumerate(turns)]
    return {"id": name, **({"image": image} if image else {}), "conversations": conversations}


def make_gqa(folder: Path) -> None:
    write_llava(folder / "llava", GQA, seed=1, dtype=torch.bfloat16)
    write_picture(folder / "images" / "wide.png", 90, 60, seed=10)
    write_picture(folder / "images" / "tall.png", 41, 77, seed=11)
    write_picture(folder / "images" / "square.png", 56, 56, seed=12)
    write_picture(folder / "images" / "grey.png", 33, 24, seed=13, mode="L")


GQA_RECORDS = [
    record("wide", "<image>\nWhat is in the picture?", "A red square.", image="wide.png"),
    record("text", "Name a fruit.", "An apple.", "And two more?", "A pear, a café crème."),
    record("tall", "Where is the circle?\n<image>", "On the left side.", "What colour?", "Blue.", image="tall.png"),
    record("square", "<image> Describe the image.", "Two circles\nand a white stripe.", image="square.png"),
    record("grey", "<image>\nIs it dark?", "Yes", "Why?", "日 is below the line; there are no shapes.", image="grey.png"),
    record("again", "<image>\nHow many shapes are there?", "There are three.", image="wide.png"),
    record("greeting", "Hello!", "Count to five.", "One, two, three, four, five.", first="gpt"),
    record("capital", "What is the capital of France?", "Paris."),
]

GQA_CONFIG = """\
# Grouped-query attention; a text-only row beside an image row, and a micro-batch without images; accumulation; six epochs.
[model]
path = "llava"
adapter = "adapter"
[vra]
teacher = "../shared/dinov2"
layers = [2]
weight = 0.5
projector_dim = 40
[lora]
r = 4
alpha = 8
dropout = 0.0
[data]
train = "train.json"
images = "images"
order = "sequential"
[train]
epochs = 6
batch = 2
accumulation = 2
lr = 2e-3
projector_lr = 5e-4
warmup_ratio = 0.2
max_length = 512
precision = "f32"
[output]
dir = "run"
"""


def make_mha(folder: Path) -> None:
    write_llava(folder / "llava", MHA, seed=2, dtype=torch.float16, dialect="hub", shards=2)
    write_picture(folder / "images" / "wide.png", 120, 90, seed=20)
    write_picture(folder / "images" / "palette.png", 60, 40, seed=21, mode="P")
    write_picture(folder / "images" / "alpha.png", 50, 84, seed=22, mode="RGBA")


LONG_QUESTION = "Count to five, or name a fruit below the yellow line; there are two circles and a stripe."

MHA_RECORDS = [
    record("wide", "<image>\nWhere is the green triangle?", "It is on the right.", image="wide.png"),
    record("late", LONG_QUESTION, "An apple.", "<image>\nAnd here?", "None.", image="palette.png"),
    record("text", "Is Paris in France?", "Yes, it is."),
    record("palette", "Describe it.\n<image>", "A dark background.", "And?", "A yellow line.", image="palette.png"),
    record("alpha", "<image>\nWhat is above?", "The circle.", image="alpha.png"),
    record("wide again", "<image>\nHow many?", "Four.", image="wide.png"),
]

MHA_CONFIG = """\
# As many key as query heads; the teacher's position table is resampled; two aligned layers, the second one after the final norm;
# clipping; weight decay; `max_length` cuts the image of the second record, which then takes no part in the alignment, and the last
# answer of the fourth.
[model]
path = "llava"
adapter = "adapter"
[vra]
teacher = "../shared/dinov2"
layers = [1, 3]
weight = 0.8
projector_dim = 24
[lora]
r = 3
alpha = 4
dropout = 0.0
targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
[data]
train = "train.json"
images = "images"
order = "sequential"
[train]
steps = 12
batch = 3
lr = 1e-3
projector_lr = 2e-3
weight_decay = 0.1
betas = [0.85, 0.99]
max_grad_norm = 0.5
max_length = 85
precision = "f32"
[output]
dir = "run"
"""

LAYER0_CONFIG = """\
# Alignment of the decoder's input embeddings; centre crop instead of padding; the teacher sees CLIP's normalisation.
[model]
path = "../gqa/llava"
adapter = "../gqa/adapter"
[vra]
teacher = "../shared/dinov2"
layers = [0]
weight = 1.0
projector_dim = 40
pixel_norm = "inherit"
[lora]
r = 4
alpha = 8
dropout = 0.0
[data]
train = "../gqa/train.json"
images = "../gqa/images"
template = "llava_v1"
image_aspect = "square"
order = "sequential"
[train]
steps = 4
batch = 4
lr = 1e-3
projector_lr = 1e-3
max_length = 512
precision = "f32"
[output]
dir = "run"
"""

MULTI_CONFIG = """\
# One alignment projector a layer; adapters on two linears only; no warm-up.
[model]
path = "../mha/llava"
adapter = "adapter"
[vra]
teacher = "../shared/dinov2"
layers = [2, 3]
projector_dim = 16
multiple_projectors = true
[lora]
r = 2
alpha = 4
dropout = 0.0
targets = ["q_proj", "v_proj"]
[data]
train = "../mha/train.json"
images = "../mha/images"
order = "sequential"
[train]
steps = 4
batch = 2
lr = 1e-3
projector_lr = 1e-3
warmup_ratio = 0.0
max_length = 512
precision = "f32"
[output]
dir = "run"
"""

LM_CONFIG = """\
# The language loss alone.
[model]
path = "../mha/llava"
adapter = "adapter"
[vra]
enabled = false
[lora]
r = 2
alpha = 4
dropout = 0.0
targets = ["k_proj", "gate_proj"]
[data]
train = "../mha/train.json"
images = "../mha/images"
order = "sequential"
[train]
steps = 4
batch = 3
accumulation = 2
lr = 1e-3
projector_lr = 1e-3
max_length = 512
precision = "f32"
[output]
dir = "run"
"""

CASES = [
    Case("gqa", GQA_CONFIG, make_gqa, GQA_RECORDS, adapter_seed=3, full=True),
    Case("mha", MHA_CONFIG, make_mha, MHA_RECORDS, adapter_seed=4, target_list=True, full=True),
    Case("layer0", LAYER0_CONFIG),
    Case("multi", MULTI_CONFIG, adapter_seed=5),
    Case("lm_only", LM_CONFIG, adapter_seed=6),
]


def make_shared(folder: Path) -> None:
    write_teacher(folder / "dinov2", TEACHER, seed=7)
    write_autoencoder(folder / "vae", AUTOENCODER, seed=8)
