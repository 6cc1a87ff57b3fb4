"""Every language model, vision encoder and teacher at tiny size, in combinations, with weights out of their names.

Writes `networks/parts.json` (the parts' configurations), `networks/cases.json` (combinations, and what training them must give) and
`networks/features.safetensors` (features of encoders and teachers for one picture).
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration

from counter import content, probe
from data import IGNORE
from llava_next import NextTrainer
from teachers import RadioGiant, Teacher, make_teacher
from toys import rename_processor
from trainer import Trainer, read_config

VOCAB = 512  # the shared tokenizer has 505 tokens
BASE = "gqa"  # the case whose tokenizer, records and pictures are used

TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "vocab_size": VOCAB, "max_position_embeddings": 2048}
TOWER = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 3, "num_attention_heads": 2}
DINOV2 = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "patch_size": 14}
SIGLIP2 = TOWER | {"model_type": "siglip_vision_model", "image_size": 80, "patch_size": 16, "vision_use_head": False}
CLIP = TOWER | {"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14}
SAM = {
    "model_type": "sam_vision_model", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 128,
    "patch_size": 16, "window_size": 3, "global_attn_indexes": [1], "output_channels": 12, "mlp_ratio": 2.0,
}  # fmt: skip

GRIDS = [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]]  # rows and columns of tiles; LLaVA-NeXT's own
PINPOINTS = [[rows * CLIP["image_size"], columns * CLIP["image_size"]] for rows, columns in GRIDS]

PARTS = {
    "text": {
        "vicuna": TEXT | {"model_type": "llama", "num_attention_heads": 3, "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        # Rows are whole blocks of the storage types that share scales.
        "blocks": TEXT
        | {
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        },
        "qwen2.5": TEXT | {"model_type": "qwen2", "num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e6},
        # A small Qwen2.5: its head is the embedding table, and the vocabulary is as large as it is.
        "qwen2.5-tied": TEXT
        | {
            "model_type": "qwen2", "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "vocab_size": 151936, "tie_word_embeddings": True,
        },
    },
    "encoder": {
        "clip": {"vision_config": CLIP},
        "clip-layers": {"vision_config": CLIP, "vision_feature_layer": [1, -2]},
        "clip-full": {"vision_config": CLIP, "vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
        "clip-tiles": {"model_type": "llava_next", "vision_config": CLIP, "image_grid_pinpoints": PINPOINTS},
        "siglip2": {"vision_config": SIGLIP2, "vision_feature_select_strategy": "full"},
        # 62 pixels are four patches of 14; the rest is not seen.
        "siglip": {
            "vision_config": SIGLIP2 | {"image_size": 62, "patch_size": 14},
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
    },
    "teacher": {
        "dinov2": DINOV2 | {"model_type": "dinov2", "image_size": 56},
        "dinov2-giant": DINOV2 | {"model_type": "dinov2", "image_size": 98, "use_swiglu_ffn": True},
        "dinov2-registers": DINOV2 | {"model_type": "dinov2_with_registers", "image_size": 84, "num_register_tokens": 3},
        "clip": CLIP,
        "siglip2": SIGLIP2 | {"image_size": 96},
        "sam": SAM,
        "depth-anything": {"model_type": "depth_anything", "backbone_config": DINOV2 | {"model_type": "dinov2", "image_size": 98}},
        "radio": {
            "model_type": "radio", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2.0,
            "patch_size": 16, "max_img_size": 128, "num_cls_tokens": 2, "num_registers": 3,
        },
        "radio-giant": {
            "model_type": "radio", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2.0,
            "patch_size": 14, "max_img_size": 112, "num_cls_tokens": 1, "num_registers": 4, "use_swiglu_ffn": True,
            "layer_scale": True, "patch_bias": True, "model_norm": True, "feature_normalizer": True,
        },
    },
}  # fmt: skip

# Text, encoder, teacher, and settings of section [vra].
CASES = {
    "vicuna-clip": ("vicuna", "clip", "dinov2-giant", {}),
    "vicuna-siglip2": ("vicuna", "siglip2", "dinov2-registers", {}),
    "qwen2.5-clip": ("qwen2.5", "clip", "depth-anything", {"pixel_norm": "inherit"}),
    "qwen2.5-siglip2": ("qwen2.5", "siglip2", "sam", {}),
    "layers": ("vicuna", "clip-layers", "radio", {}),
    "tied": ("qwen2.5-tied", "clip", "dinov2", {}),
    "tiles": ("vicuna", "clip-tiles", "dinov2", {}),
    "siglip2-teacher": ("vicuna", "clip", "siglip2", {}),
    "radio-giant": ("qwen2.5", "siglip2", "radio-giant", {}),
    "own-size": ("qwen2.5", "siglip2", "clip", {"teacher_size": "own"}),
}

# Twelve steps, but for the large vocabulary, which takes its time.
STEPS = {"tied": 3}

CONFIG = """\
[model]
path = "llava"
adapter = "adapter"
[vra]
teacher = "teacher"
layers = [2]
weight = 0.7
projector_dim = 20
{vra}[lora]
r = 3
alpha = 6
dropout = 0.0
[data]
train = "train.json"
images = "images"
image_aspect = "square"
order = "sequential"
[train]
steps = {steps}
batch = 2
lr = 2e-3
projector_lr = 5e-4
warmup_ratio = 0.1
max_length = 512
precision = "f32"
[output]
dir = "run"
"""


def write_networks(folder: Path, base: Path) -> None:
    """`base` is the folder of the case whose data are used."""
    folder.mkdir(parents=True)
    (folder / "parts.json").write_text(json.dumps(PARTS, indent=1) + "\n")
    cases = {}
    for name, (text, encoder, teacher, vra) in CASES.items():
        settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in vra.items())
        config = CONFIG.format(vra=settings, steps=STEPS.get(name, 12))
        with tempfile.TemporaryDirectory() as temporary:
            case = Path(temporary)
            write_llava(case / "llava", text, encoder, base)
            for file in ("train.json", "images"):
                (case / file).symlink_to((base / file).resolve())
            (case / "config.toml").write_text(config)
            figures = train(case, PARTS["teacher"][teacher])
        cases[name] = {"text": text, "encoder": encoder, "teacher": teacher, "config": config} | figures
    (folder / "cases.json").write_text(dump(cases) + "\n")
    save_file(features(), folder / "features.safetensors", metadata={"format": "pt"})


def dump(cases: dict) -> str:
    """One line a case and figure."""
    lines = []
    for name, case in cases.items():
        lines.append(f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in case.items()) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}"


def train(case: Path, teacher: dict) -> dict:
    """Losses of every step, and of the first and the last one what tells tensors apart."""
    config = read_config(case / "config.toml")
    config["model"]["adapter"] = None
    torch.manual_seed(0)
    is_tiled = json.loads((case / "llava" / "config.json").read_text())["model_type"] == "llava_next"
    return probe_training((NextTrainer if is_tiled else Trainer)(config, teacher=fill_teacher(teacher)))


def probe_training(trainer: Trainer) -> dict:
    """As `train`, from tensors with contents by name."""
    parameters = trainer.network.trainable()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(content(name, tuple(parameter.shape)))
    steps = []
    for step, outputs in trainer.run():
        steps.append([float(f"{x:.9g}") for x in (step.loss_lm, step.loss_vra, step.grad_norm)])
        if step.step == 0:
            first = {f"grad.{name}": probe(name, parameter.grad) for name, parameter in parameters.items()}
            first |= activations(outputs[0])
    last = {name: probe(name, parameter) for name, parameter in parameters.items()}
    return {"steps": steps, "first": first, "last": last}


def activations(output) -> dict[str, list[float]]:
    """What the first micro-batch makes of its first row."""
    is_target = output.labels[:, 1:] != IGNORE
    tensors = {f"hidden.{k}": states[0, : output.lengths[0]] for k, states in enumerate(output.hidden)}
    tensors["logits"] = output.logits[:, :-1][is_target]
    tensors["vision_features"], tensors["targets"] = output.features[0], output.targets[0]
    return {name: probe(name, tensor) for name, tensor in tensors.items()}


def write_llava(folder: Path, text: str, encoder: str, base: Path) -> None:
    model = make_llava(text, encoder)
    model.save_pretrained(folder)
    side = PARTS["encoder"][encoder]["vision_config"]["image_size"]
    processor = json.loads((base / "llava" / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    rename_processor(folder / "preprocessor_config.json")
    if "image_grid_pinpoints" in PARTS["encoder"][encoder]:
        settings = {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": PINPOINTS, "do_pad": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor | settings))
    shutil.copy(base / "llava" / "tokenizer.json", folder)


def llava_config(text: str, encoder: str) -> dict:
    """As the Rust side writes it, but for the rotary settings, which the library wants under their newer name."""
    decoder = dict(PARTS["text"][text])
    decoder["rope_parameters"] = {"rope_type": "default", "rope_theta": decoder.pop("rope_theta")}
    tied = decoder.get("tie_word_embeddings", False)
    parts = {"text_config": decoder, "image_token_index": 503, "pad_token_id": 504, "tie_word_embeddings": tied}
    return parts | PARTS["encoder"][encoder]


@torch.no_grad()
def make_llava(text: str, encoder: str) -> nn.Module:
    """A model with contents by its tensors' names."""
    config = llava_config(text, encoder)
    if config.pop("model_type", "llava") == "llava_next":
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(**config))
    else:
        model = LlavaForConditionalGeneration(LlavaConfig(**config))
    for name, parameter in model.named_parameters():
        parameter.copy_(content(name.replace(".vision_model.", "."), tuple(parameter.shape)))
    return model


def fill_teacher(config: dict) -> Teacher:
    """A teacher with contents by the names in its files."""
    if config.get("layer_scale"):
        return RadioGiant(config)
    teacher = make_teacher(config)
    with tempfile.TemporaryDirectory() as folder:
        teacher.model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "layer_scale" in name and config["model_type"] == "radio" or name.endswith("summary_idxs"):
                continue  # identities, and a list
            tensors[name] = content(re.sub(r"^(radio_model\.)?(model\.|vision_model\.|vision_encoder\.)?", "", name), tuple(tensor.shape))
        save_file(tensors, file, metadata={"format": "pt"})
        model = type(teacher.model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return type(teacher)(model)


@torch.no_grad()
def features() -> dict[str, Tensor]:
    """Features of the picture whose pixels are `content("pixels")`, by every encoder and every teacher."""
    result = {}
    for name, part in PARTS["encoder"].items():
        model = make_llava("vicuna", name).eval()
        side = part["vision_config"]["image_size"]
        pixels = content("pixels", (1, 3, side, side))
        # The library's own method, up to the projector.
        seen = []
        model.model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        if "image_grid_pinpoints" in part:
            # A square picture has two tiles beside the whole; all of them are the same here.
            model.model.get_image_features(pixels.expand(1, 3, -1, -1, -1), torch.tensor([[side, side]]))
        else:
            model.model.get_image_features(pixels)
        result[f"encoder.{name}"] = seen[0][0].contiguous()
    for name, part in PARTS["teacher"].items():
        teacher = fill_teacher(part)
        # The stored grid, and one that needs another table.
        for grid in sorted({min(teacher.own_grid, 6), 4}):
            pixels = content("pixels", (1, 3, grid * teacher.patch, grid * teacher.patch))
            result[f"teacher.{name}.{grid}"] = teacher.features(pixels).contiguous()
    return result
