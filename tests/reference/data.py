"""From a LLaVA record to token ids, labels and pixels."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

IGNORE = -100  # label of a position that is no target
IMAGE = -200  # stands in the ids for all visual tokens of the image
IMAGE_TAG = "<image>"
# LLaVA pads with the truncated integer mean colour, so the border is not exactly zero after normalisation.
PAD_COLOUR = (122, 116, 104)

SYSTEM = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
# System text and end token.
TEMPLATES = {
    "vicuna_v1": (SYSTEM.format("user"), "</s>"),
    "llava_v1": (SYSTEM.format("human"), "</s>"),
    "qwen_2": (SYSTEM.format("human"), "<|im_end|>"),
}


@dataclass
class Sample:
    ids: list[int]
    labels: list[int]
    image: str | None


def load_samples(path: Path, tokenizer: Tokenizer, template: str, supervise_final_end: bool) -> list[Sample]:
    """All records of a JSON array or JSONL file, in order."""
    text = path.read_text(encoding="utf-8")
    records = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]
    samples = []
    for record in records:
        text, answers = build_caption(record) if template == "plain" else build_prompt(record, template)
        if template == "qwen_2" and not supervise_final_end:
            start, stop = answers[-1]
            answers[-1] = (start, stop - len(TEMPLATES[template][1]))
        ids, labels = tokenize(tokenizer, text, answers)
        samples.append(Sample(ids, labels, record.get("image")))
    return samples


def build_caption(record: dict) -> tuple[str, list[tuple[int, int]]]:
    """The `plain` template: the image and its caption; what the human says is left out."""
    question, caption = record["conversations"]
    assert IMAGE_TAG in question["value"]
    text = IMAGE_TAG + caption["value"] + "\n"
    return text, [(len(IMAGE_TAG), len(text))]


def build_prompt(record: dict, template: str) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as one text, and the character range of each supervised answer.

    A range begins with the space after "ASSISTANT:" and ends with the end token.
    """
    turns = record["conversations"]
    if turns[0]["from"] != "human":
        turns = turns[1:]
    system, end = TEMPLATES[template]
    text = system + " "
    answers = []
    for i, turn in enumerate(turns):
        assert turn["from"] == ("human", "gpt")[i % 2], "roles must alternate"
        value = turn["value"]
        if "image" in record and IMAGE_TAG in value:
            value = (IMAGE_TAG + "\n" + value.replace(IMAGE_TAG, "").strip()).strip()
        if i % 2 == 0:
            text += "USER: " + value + " "
        else:
            text += "ASSISTANT:"
            start = len(text)
            text += " " + value + end
            answers.append((start, len(text)))
    return text, answers


def tokenize(tokenizer: Tokenizer, text: str, answers: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Tokenises each chunk around the image tags alone; the BOS of all but the first is dropped."""
    n_bos = len(tokenizer.encode("").ids)
    ids, labels, offset = [], [], 0
    for i, chunk in enumerate(text.split(IMAGE_TAG)):
        if i > 0:
            ids.append(IMAGE)
            labels.append(IGNORE)
            offset += len(IMAGE_TAG)
        encoding = tokenizer.encode(chunk)
        first = 0 if i == 0 else n_bos
        for token, (_, end) in zip(encoding.ids[first:], encoding.offsets[first:]):
            supervised = any(start < offset + end <= stop for start, stop in answers)
            ids.append(token)
            labels.append(token if supervised else IGNORE)
        offset += len(chunk)
    return ids, labels


def load_pixels(processor: CLIPImageProcessorPil, path: Path, aspect: str) -> torch.Tensor:
    """The normalised image. (3, S, S)"""
    image = Image.open(path).convert("RGB")
    if aspect == "pad":
        image = pad_to_square(image)
    return torch.from_numpy(processor(image, return_tensors="np")["pixel_values"][0])


def pad_to_square(image: Image.Image) -> Image.Image:
    width, height = image.size
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), PAD_COLOUR)
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas
