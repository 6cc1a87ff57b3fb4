"""The reference network of `tests/reference` with whole batches instead of single pictures: as fast as PyTorch users have it."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests/reference"))

from data import IGNORE, IMAGE, Sample
from network import Network
from teachers import IMAGENET, renormalise


class BatchedNetwork(Network):
    """One forward pass of CLIP and of the teacher a micro-batch, and no Python loop over tokens."""

    attention = "sdpa"
    # transformers' own loss computes logits of every position; with True only of those that have a target.
    supervised_rows_only = False

    def forward(self, samples: list[Sample], pixels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, int]:
        """Loss, language-model loss, alignment loss, tokens. Every sample has a picture that fits."""
        batch = torch.stack(pixels)  # (B, 3, S, S)
        tokens = self.llava.model.multi_modal_projector(self.clip_batch(batch))  # (B, N, D)
        embed, labels, lengths = self.splice_batch(samples, tokens)  # (B, T, D), (B, T)
        positions = torch.arange(embed.shape[1])
        mask = (positions < torch.tensor(lengths)[:, None]).long()
        decoder = self.llava.model.language_model(
            inputs_embeds=embed,
            attention_mask=mask,
            position_ids=positions * mask,
            output_hidden_states=self.alignment_projector is not None,
            use_cache=False,
        )
        lm = self.language_loss(decoder.last_hidden_state, labels)
        vra = torch.zeros(())
        if self.alignment_projector is not None:
            vra = self.alignment_batch(decoder.hidden_states, samples, self.teacher_batch(batch))
        return lm + self.vra["weight"] * vra, lm, vra, sum(lengths)

    def language_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        hidden, labels = hidden[:, :-1], labels[:, 1:]
        if self.supervised_rows_only:
            at = labels != IGNORE
            return F.cross_entropy(self.llava.lm_head(hidden[at]), labels[at])
        return F.cross_entropy(self.llava.lm_head(hidden).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)

    def splice_batch(self, samples: list[Sample], tokens: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        table, count = self.llava.get_input_embeddings(), tokens.shape[1]
        rows, labels = [], []
        for sample, visual in zip(samples, tokens):
            at = sample.ids.index(IMAGE)
            before, after = (table(torch.tensor(ids)) for ids in (sample.ids[:at], sample.ids[at + 1 :]))
            rows.append(torch.cat([before, visual, after]))
            labels.append(torch.tensor(sample.labels[:at] + [IGNORE] * count + sample.labels[at + 1 :]))
        lengths = [len(row) for row in rows]
        assert max(lengths) <= self.max_length, "the reference does not cut samples"
        pad = nn.utils.rnn.pad_sequence
        return pad(rows, batch_first=True), pad(labels, batch_first=True, padding_value=IGNORE), lengths

    @torch.no_grad()
    def clip_batch(self, pixels: Tensor) -> Tensor:
        tower = self.llava.model.vision_tower
        states = tower(pixels, output_hidden_states=True).hidden_states
        return states[self.llava.config.vision_feature_layer][:, 1:]

    @torch.no_grad()
    def teacher_batch(self, pixels: Tensor) -> Tensor:
        """Patch tokens after the final norm. (B, N, d)"""
        assert self.vra["pixel_norm"] == "native"
        pixels = renormalise(pixels, (self.processor.image_mean, self.processor.image_std), IMAGENET)
        side = self.grid() * self.teacher.patch
        if side != pixels.shape[-1]:
            pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        return self.teacher.model(pixels).last_hidden_state[:, 1:]

    def alignment_batch(self, hidden: tuple[Tensor, ...], samples: list[Sample], targets: Tensor) -> Tensor:
        """Mean over samples, target layers and visual tokens of -cos(P(h), y)."""
        starts = [sample.ids.index(IMAGE) for sample in samples]
        losses = []
        for index, layer in enumerate(self.vra["layers"]):
            several = self.vra["multiple_projectors"]
            projector = self.alignment_projector[index] if several else self.alignment_projector
            states = torch.stack([row[at : at + targets.shape[1]] for row, at in zip(hidden[layer], starts)])
            losses.append(-F.cosine_similarity(projector(states), targets, dim=-1).mean())
        return torch.stack(losses).mean()
