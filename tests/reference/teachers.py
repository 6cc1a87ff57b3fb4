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
