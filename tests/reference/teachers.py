"""The teachers: features out of the vision tower's pixels, as the library's models make them."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPVisionModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    RadioModel,
    SamVisionModel,
    SiglipVisionModel,
)

from counter import content

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class Teacher:
    """A frozen model; `norm` is the mean and deviation of its pixels, None if they are from 0 to 1."""

    norm = IMAGENET

    def __init__(self, model: nn.Module):
        self.model = model.requires_grad_(False).eval()
        self.patch = model.config.patch_size

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    @property
    def own_grid(self) -> int:
        return self.model.config.image_size // self.patch

    def features(self, pixels: Tensor) -> Tensor:
        """Of square pixels (1, 3, grid * patch, grid * patch) the features (grid * grid, d)."""
        raise NotImplementedError

    @torch.no_grad()
    def targets(self, pixels: Tensor, options: dict, norm: tuple, grid: int) -> Tensor:
        """Of the tower's pixels (3, S, S) the targets (grid * grid, d)."""
        own = self.own_grid if options.get("teacher_size") == "own" else grid
        pixels = pixels[None]
        if self.norm is not None and options["pixel_norm"] == "native":
            pixels = renormalise(pixels, norm, self.norm)
        pixels = F.interpolate(pixels, size=(own * self.patch,) * 2, mode="bilinear", align_corners=False)
        if self.norm is None:
            pixels = renormalise(pixels, norm, ((0.0,) * 3, (1.0,) * 3)).clamp(0, 1)
        features = self.features(pixels)
        if own == grid:
            return features
        grid_map = features.T.reshape(1, -1, own, own)
        return F.interpolate(grid_map, size=(grid, grid), mode="bilinear", align_corners=False)[0].flatten(1).T


def renormalise(pixels: Tensor, old: tuple, new: tuple) -> Tensor:
    (mean, std), (ours, scale) = ([torch.tensor(v)[:, None, None] for v in norm] for norm in (old, new))
    return (pixels * std + mean - ours) / scale


class Dinov2(Teacher):
    def features(self, pixels: Tensor) -> Tensor:
        skip = 1 + getattr(self.model.config, "num_register_tokens", 0)
        return self.model(pixels).last_hidden_state[0, skip:]


class DepthAnything(Dinov2):
    """The library's DINOv2 with the position table of the release: the scale is (grid + 0.1) / stored side."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        model.embeddings.interpolate_pos_encoding = self.positions

    def positions(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        table = self.model.embeddings.position_embeddings
        side = int((table.shape[1] - 1) ** 0.5)
        rows, columns = height // self.patch, width // self.patch
        if rows == columns == side:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
        assert grid.shape[-2:] == (rows, columns)
        return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class Tower(Teacher):
    """Hidden state -2, patches only. A table for another size is resampled as the library does."""

    def features(self, pixels: Tensor) -> Tensor:
        states = self.model(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
        return states[-2][0, self.skip :]


class Clip(Tower):
    norm, skip = CLIP, 1


class Siglip(Tower):
    norm, skip = ((0.5,) * 3, (0.5,) * 3), 0


class Sam(Teacher):
    """The picture in the middle of a canvas of zeros, and its part of the neck's features."""

    @property
    def width(self) -> int:
        return self.model.config.output_channels

    def features(self, pixels: Tensor) -> Tensor:
        grid = pixels.shape[-1] // self.patch
        start = (self.own_grid - grid) // 2
        canvas = torch.zeros(1, 3, self.model.config.image_size, self.model.config.image_size)
        at = slice(start * self.patch, (start + grid) * self.patch)
        canvas[:, :, at, at] = pixels
        features = self.model(canvas).last_hidden_state  # (1, d, own, own)
        return features[0, :, start : start + grid, start : start + grid].flatten(1).T


class Radio(Teacher):
    norm = None

    @property
    def own_grid(self) -> int:
        return self.model.config.max_img_size // self.patch

    def features(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).features[0]


class RadioGiant(Radio):
    """RADIO v2.5-g: a DINOv2 behind RADIO's front end, by the formulas of the release. Names are those of its files."""

    def __init__(self, config: dict):
        self.config, self.patch = config, config["patch_size"]
        width, self.heads = config["hidden_size"], config["num_attention_heads"]
        middle = -(-int(width * config["mlp_ratio"] * 2 / 3) // 8) * 8
        shapes = {
            "input_conditioner.norm_mean": (3, 1, 1),
            "input_conditioner.norm_std": (3, 1, 1),
            "patch_generator.embedder.weight": (width, 3 * self.patch**2),
            "patch_generator.embedder.bias": (width,),
            "patch_generator.pos_embed": (1, self.own_grid**2, width),
            "patch_generator.cls_token.token": (config["num_cls_tokens"] + config["num_registers"], width),
        }
        for i in range(config["num_hidden_layers"]):
            block = {
                "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,),
                "attn.proj.weight": (width, width), "attn.proj.bias": (width,), "layer_scale1.lambda1": (width,),
                "norm2.weight": (width,), "norm2.bias": (width,), "mlp.weights_in.weight": (2 * middle, width),
                "mlp.weights_in.bias": (2 * middle,), "mlp.weights_out.weight": (width, middle), "mlp.weights_out.bias": (width,),
                "layer_scale2.lambda1": (width,),
            }  # fmt: skip
            shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        shapes |= {"norm.weight": (width,), "norm.bias": (width,), "feature_normalizer.mean": (width,)}
        shapes |= {"feature_normalizer.tx": (width, width)}
        self.tensors = {name: content(name, shape) for name, shape in shapes.items()}

    @property
    def width(self) -> int:
        return self.config["hidden_size"]

    @property
    def own_grid(self) -> int:
        return self.config["max_img_size"] // self.patch

    def features(self, pixels: Tensor) -> Tensor:
        t = self.tensors
        x = (pixels - t["input_conditioner.norm_mean"]) / t["input_conditioner.norm_std"]
        x = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)  # (1, N, 3 * p * p)
        x = F.linear(x, t["patch_generator.embedder.weight"], t["patch_generator.embedder.bias"])
        grid, own = pixels.shape[-1] // self.patch, self.own_grid
        table = t["patch_generator.pos_embed"].reshape(1, own, own, -1).permute(0, 3, 1, 2)
        x = x + F.interpolate(table, size=(grid, grid), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        tokens = t["patch_generator.cls_token.token"]
        x = torch.cat([tokens[None], x], dim=1)
        for i in range(self.config["num_hidden_layers"]):
            x = self.block(x, f"blocks.{i}.")
        x = self.layer_norm(x, "norm")[0, len(tokens) :]
        return (x - t["feature_normalizer.mean"]) @ t["feature_normalizer.tx"].T

    def block(self, x: Tensor, prefix: str) -> Tensor:
        t = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}
        n, width = x.shape[1:]
        qkv = F.linear(self.layer_norm(x, prefix + "norm1"), t["attn.qkv.weight"], t["attn.qkv.bias"])
        q, k, v = qkv.reshape(n, 3, self.heads, width // self.heads).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) * (width // self.heads) ** -0.5).softmax(-1)
        attended = (weights @ v).transpose(0, 1).reshape(1, n, width)
        x = x + t["layer_scale1.lambda1"] * F.linear(attended, t["attn.proj.weight"], t["attn.proj.bias"])
        gate, up = F.linear(self.layer_norm(x, prefix + "norm2"), t["mlp.weights_in.weight"], t["mlp.weights_in.bias"]).chunk(2, -1)
        fed = F.linear(F.silu(gate) * up, t["mlp.weights_out.weight"], t["mlp.weights_out.bias"])
        return x + t["layer_scale2.lambda1"] * fed

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.tensors[name + ".weight"], self.tensors[name + ".bias"], 1e-6)


KINDS = {
    "dinov2": (Dinov2, Dinov2Model),
    "dinov2_with_registers": (Dinov2, Dinov2WithRegistersModel),
    "clip_vision_model": (Clip, CLIPVisionModel),
    "siglip_vision_model": (Siglip, SiglipVisionModel),
    "sam_vision_model": (Sam, SamVisionModel),
    "radio": (Radio, RadioModel),
}


def make_teacher(config: dict) -> Teacher:
    """A teacher of a `config.json`, without its weights."""
    if config["model_type"] == "depth_anything":
        return DepthAnything(build(Dinov2Model, config["backbone_config"]))
    kind, model = KINDS[config["model_type"]]
    return kind(build(model, config))


def build(model: type, config: dict) -> nn.Module:
    settings = model.config_class(**{key: value for key, value in config.items() if key != "model_type"})
    settings._attn_implementation = "eager"
    return model(settings)


def load_teacher(folder: Path, attention: str = "eager") -> Teacher:
    """A directory's teacher with its weights; `attention` is the library's name of an implementation."""
    kind, model = KINDS[json.loads((folder / "config.json").read_text())["model_type"]]
    return kind(model.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention))
