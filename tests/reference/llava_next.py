"""LLaVA-NeXT as it is trained: the library's tiles and packing. Of a picture in tiles, the tokens of the whole picture are aligned."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from network import Network
from trainer import Trainer


@dataclass
class Tiles:
    pixels: Tensor  # (tiles, 3, S, S), the whole picture first
    size: tuple[int, int]  # height and width of the picture


class NextNetwork(Network):
    model_type, processor_type = LlavaNextForConditionalGeneration, LlavaNextImageProcessorPil

    def visual_tokens(self, features: Tensor, pixels: Tiles) -> Tensor:
        return self.llava.model.get_image_features(pixels.pixels[None], torch.tensor([pixels.size])).pooler_output[0]

    def clip_features(self, pixels: Tiles) -> Tensor:
        return super().clip_features(pixels.pixels[0])

    def teacher_features(self, pixels: Tiles) -> Tensor:
        return super().teacher_features(pixels.pixels[0])

    def is_whole(self, visual: Tensor) -> bool:
        return bool(visual.sum() >= self.grid() ** 2)


class NextTrainer(Trainer):
    network_type = NextNetwork

    def pixels(self, image: str | None) -> Tiles | None:
        if image is None:
            return None
        picture = Image.open(Path(self.data["images"]) / image).convert("RGB")
        pixels = self.network.processor(picture, return_tensors="pt")["pixel_values"][0]
        return Tiles(pixels, (picture.height, picture.width))
