"""Small random models, tokenizers, adapters and pictures in the layouts that users have on disk."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import CLIPVisionConfig, Dinov2Config, Dinov2Model, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

CORPUS = Path(__file__).with_name("corpus.txt")

# How tensors are called in a file, as rewrites of the names that the current library saves (the first one). "hub" also has the
# sparse configuration file of published models.
DIALECTS = {
    "saved": [],
    "hub": [(r"^vision_tower\.", "vision_tower.vision_model.")],
    "memory": [
        (r"^language_model\.lm_head", "lm_head"),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^vision_tower\.", "model.vision_tower.vision_model."),
        (r"^multi_modal_projector", "model.multi_modal_projector"),
    ],
}


@dataclass
class LlavaShape:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    clip_hidden: int
    clip_intermediate: int
    clip_layers: int
    clip_heads: int
    image: int
    patch: int = 14
    merges: int = 200
    head_dim: int | None = None
    rms_eps: float = 1e-5
    rope_theta: float = 10000.0


@dataclass
class TeacherShape:
    hidden: int
    layers: int
    heads: int
    image: int  # the position table's own; another input size makes the model resample it
    patch: int = 14
    mlp_ratio: int = 2
    swiglu: bool = False


def make_tokenizer(merges: int) -> Tokenizer:
    """A LLaMA-like BPE: byte fallback, "▁" for spaces, a dummy space only at the start of a text, BOS in front."""
    spaces = {"replacement": "▁", "prepend_scheme": "first"}
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(split=True, **spaces)
    text = CORPUS.read_text(encoding="utf-8").splitlines()
    alphabet = len({c for line in text for c in line if c != " "} | {"▁"})
    learned.train_from_iterator(text, trainers.BpeTrainer(vocab_size=alphabet + merges, show_progress=False))
    model = json.loads(learned.to_str())["model"]

    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab += sorted(model["vocab"], key=model["vocab"].get)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocab)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False, **spaces)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[bos])
    return tokenizer


def write_llava(folder: Path, shape: LlavaShape, seed: int, dtype: torch.dtype, dialect: str = "saved", shards: int = 1) -> None:
    """A LLaVA directory with random weights of a size that makes every part of the network matter."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(shape.merges)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocab = tokenizer.get_vocab_size()
    vision = CLIPVisionConfig(
        hidden_size=shape.clip_hidden,
        intermediate_size=shape.clip_intermediate,
        num_hidden_layers=shape.clip_layers,
        num_attention_heads=shape.clip_heads,
        image_size=shape.image,
        patch_size=shape.patch,
    )
    text = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=-(-vocab // 16) * 16,
        max_position_embeddings=2048,
        rms_norm_eps=shape.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.token_to_id("<image>"),
        pad_token_id=tokenizer.token_to_id("<pad>"),
        image_seq_length=(shape.image // shape.patch) ** 2,
    )
    model = LlavaForConditionalGeneration(config)
    randomise(model, seed)
    model.to(dtype).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": shape.image}, crop_size={"height": shape.image, "width": shape.image}
    ).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    rename_processor(folder / "preprocessor_config.json")
    rewrite(folder, dialect, shards)
    if dialect == "hub":
        make_sparse(folder / "config.json")


def rename_processor(file: Path) -> None:
    """Published files name the processor without its backend."""
    settings = json.loads(file.read_text())
    settings["image_processor_type"] = "CLIPImageProcessor"
    file.write_text(json.dumps(settings, indent=2) + "\n")


def make_sparse(file: Path) -> None:
    """Drops what equals a library default, and writes the rest under the keys that older library versions know."""
    config = json.loads(file.read_text())
    text, vision = config["text_config"], config["vision_config"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    if text["num_key_value_heads"] == text["num_attention_heads"]:
        del text["num_key_value_heads"]
    if text["head_dim"] * text["num_attention_heads"] == text["hidden_size"]:
        del text["head_dim"]
    defaults = [(text, LlamaConfig().to_dict() | {"rope_theta": 10000.0}), (vision, CLIPVisionConfig().to_dict())]
    for part, default in defaults:
        for key in [key for key in part if key in default and part[key] == default[key] and key != "model_type"]:
            del part[key]
    for key in ("vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act", "multimodal_projector_bias"):
        del config[key]
    config["torch_dtype"] = config.pop("dtype")
    file.write_text(json.dumps(config, indent=2) + "\n")


def rewrite(folder: Path, dialect: str, shards: int) -> None:
    """Renames the tensors of a saved model and deals them out to `shards` files."""
    if dialect == "saved" and shards == 1:
        return
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for pattern, replacement in DIALECTS[dialect]:
        tensors = {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}
    file.unlink()
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, file, metadata={"format": "pt"})
        return
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in names[i::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_teacher(folder: Path, shape: TeacherShape, seed: int) -> None:
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            mlp_ratio=shape.mlp_ratio,
            image_size=shape.image,
            patch_size=shape.patch,
            use_swiglu_ffn=shape.swiglu,
        )
    )
    randomise(model, seed)
    model.save_pretrained(folder)


def write_autoencoder(folder: Path, config: dict, seed: int) -> None:
    # Only here, so that everything else runs without that library.
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**config)
    randomise(model, seed)
    model.to(torch.bfloat16).save_pretrained(folder)


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Weights that keep activations near 1, so that no branch is drowned by another."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("lambda1"):
            value = 0.5 + 0.1 * noise
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * noise
        elif parameter.ndim == 1 or "embed_tokens" in name or "position" in name or name.endswith("_token"):
            value = (0.05 if name.endswith("bias") else 0.5) * noise
        else:
            value = noise / parameter[0].numel() ** 0.5
        parameter.copy_(value)


@torch.no_grad()
def write_adapter(folder: Path, network: nn.Module, seed: int) -> None:
    """Randomises the trained tensors, LoRA's B included, and saves them as an adapter directory with companion files."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.trainable().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            parameter.copy_(0.05 * noise)
        else:
            # A small B leaves the base weight the larger part of the sum.
            parameter.copy_((0.2 if "lora_B" in name else 1) * noise / parameter.shape[1] ** 0.5)
    network.peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "llava"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    for part, file in [("multi_modal_projector", "mm_projector"), ("alignment_projector", "alignment_projector")]:
        tensors = {name: p.detach().clone() for name, p in network.trainable().items() if name.startswith(part)}
        if tensors:
            save_file(tensors, folder / f"{file}.safetensors", metadata={"format": "pt"})


def write_picture(file: Path, width: int, height: int, seed: int, mode: str = "RGB") -> None:
    """Smooth ramps, sharp shapes and a noisy patch: enough for a wrong filter, crop or channel order to show."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramps = [(a * x / width + b * y / height) * 127.5 for a, b in rng.uniform(0, 1, (3, 2))]
    pixels = np.stack(ramps, axis=-1).astype(np.uint8)
    noise = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    pixels[: height // 4, -(width // 4) :] = noise
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for kind in (draw.rectangle, draw.ellipse, draw.rectangle):
        left, top = int(rng.integers(0, width * 2 // 3)), int(rng.integers(0, height * 2 // 3))
        box = (left, top, left + int(rng.integers(4, width // 2)), top + int(rng.integers(4, height // 2)))
        kind(box, fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    if mode == "P":
        image = image.quantize(64)
    elif mode == "RGBA":
        image.putalpha(Image.fromarray((255 * x // width).astype(np.uint8)))
    else:
        image = image.convert(mode)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, optimize=True)
