"""LLaVA as it is trained, with what is aligned or added inside the decoder: one micro-batch forward."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from data import IGNORE, IMAGE, Sample
from ross import Denoiser, draw_latents, load_autoencoder, masked_mean
from teachers import Teacher, load_teacher

LANGUAGE_LINEARS = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.({})"


@dataclass
class Output:
    """What one micro-batch yields. B rows, T the longest row, N visual tokens an image."""

    loss: Tensor
    lm: Tensor
    vra: Tensor
    ross: Tensor
    lengths: list[int]
    labels: Tensor  # (B, T), IGNORE beyond a row's length
    hidden: tuple[Tensor, ...]  # L + 1 of (B, T, D); the last one is normalised
    logits: Tensor  # (B, T, V)
    features: list[Tensor | None]  # a row's CLIP features (N, Dz)
    targets: list[Tensor | None]  # a contributing row's teacher features (N, d)


def cosine(states: Tensor, targets: Tensor) -> Tensor:
    return -(F.normalize(states, dim=-1) * F.normalize(targets, dim=-1)).sum(-1).mean()


def relation(states: Tensor, targets: Tensor) -> Tensor:
    states, targets = F.normalize(states, dim=-1), F.normalize(targets, dim=-1)
    return F.mse_loss(states @ states.T, targets @ targets.T)


OBJECTIVES = {"cosine": cosine, "relation": relation}


class AlignmentProjector(nn.Module):
    def __init__(self, width: int, middle: int, teacher_width: int):
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, middle), nn.SiLU(), nn.Linear(middle, middle), nn.SiLU(), nn.Linear(middle, teacher_width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.projector(x)


class Network(nn.Module):
    """Built from the directories that `config` names; `adapter` overrides the configured starting point, `teacher` the directory."""

    attention = "eager"  # transformers' name of an implementation
    model_type, processor_type = LlavaForConditionalGeneration, CLIPImageProcessorPil

    def __init__(self, config: dict, adapter: Path | None, teacher: Teacher | None = None):
        super().__init__()
        self.vra, self.residual, self.max_length = config["vra"], config["residual"], config["train"]["max_length"]
        self.ross = config["ross"]
        path = Path(config["model"]["path"])
        self.processor = self.processor_type.from_pretrained(path)
        base = self.model_type.from_pretrained(path, dtype=torch.float32, attn_implementation=self.attention)
        base.requires_grad_(False)
        stage, method = config["train"]["stage"], config["train"]["method"]
        self.peft: nn.Module | None = None
        if (stage, method) == ("finetune", "lora"):
            self.peft = self.with_lora(base, config["lora"])
            base = self.peft.base_model.model
        self.llava: nn.Module = base
        self.llava.model.multi_modal_projector.requires_grad_(True)
        if (stage, method) == ("finetune", "full"):
            self.llava.model.language_model.requires_grad_(True)
            self.llava.lm_head.requires_grad_(True)

        text, vision = base.config.text_config.hidden_size, self.llava.model.multi_modal_projector.linear_1.in_features
        self.teacher: Teacher | None = None
        self.alignment_projector: nn.Module | None = None
        widths = {"encoder": vision, "post_projection": text}
        if self.vra["enabled"] and self.vra["target"] == "teacher":
            self.teacher = teacher or load_teacher(Path(self.vra["teacher"]), self.attention)
            widths["teacher"] = self.teacher.width
        if self.vra["enabled"] and self.vra["use_projector"]:
            sizes = (text, self.vra["projector_dim"], widths[self.vra["target"]])
            if self.vra["multiple_projectors"]:
                self.alignment_projector = nn.ModuleList(AlignmentProjector(*sizes) for _ in self.vra["layers"])
            else:
                self.alignment_projector = AlignmentProjector(*sizes)
            self.alignment_projector.requires_grad_(not self.vra["projector_frozen"])
        self.residual_projector: nn.Module | None = None
        if self.residual["enabled"]:
            if self.residual["source"] == "pre_projection":
                self.residual_projector = nn.ModuleDict({"linear": nn.Linear(vision, text)})
            for layer in self.residual["layers"]:
                self.llava.model.language_model.layers[layer - 1].register_forward_hook(self.add_residual)
        if self.ross["enabled"]:
            self.autoencoder = load_autoencoder(Path(self.ross["vae"]))
            self.denoiser = Denoiser(self.ross, self.autoencoder.width, text, self.grid())
        if adapter is not None:
            self.load_adapter(adapter)
        self.eval()

    @staticmethod
    def with_lora(base: nn.Module, lora: dict) -> nn.Module:
        assert lora["dropout"] == 0, "a random mask has no reference"
        targets = LANGUAGE_LINEARS.format("|".join(lora["targets"]))
        lora = LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=targets, task_type="CAUSAL_LM")
        return get_peft_model(base, lora)

    def load_adapter(self, folder: Path) -> None:
        """Loads an adapter directory with its companion files; any key without a counterpart is an error."""
        adapter = json.loads((folder / "adapter_config.json").read_text())
        ours = self.peft.peft_config["default"]
        assert (adapter["r"], adapter["lora_alpha"]) == (ours.r, ours.lora_alpha), "adapter and configuration differ"
        lora = load_file(folder / "adapter_model.safetensors")
        # Adapters made by old library versions carry the old module path.
        lora = {key.replace("language_model.model.", "model.language_model."): value for key, value in lora.items()}
        expected = {name for name in self.trainable() if "lora_" in name}
        assert set(lora) == expected, sorted(set(lora) ^ expected)
        set_peft_model_state_dict(self.peft, lora)
        load_strictly(self.llava.model.multi_modal_projector, folder / "mm_projector.safetensors", "multi_modal_projector.")
        if self.alignment_projector is not None:
            load_strictly(self.alignment_projector, folder / "alignment_projector.safetensors", "alignment_projector.")

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trained tensor under its name in the adapter directory."""
        return {name: parameter for name, parameter in self.tensors().items() if parameter.requires_grad}

    def new_tensors(self) -> dict[str, nn.Parameter]:
        """The tensors that the model does not have."""
        parts = ("lora_", "alignment_projector", "residual_projector", "denoiser")
        return {name: parameter for name, parameter in self.tensors().items() if any(part in name for part in parts)}

    def tensors(self) -> dict[str, nn.Parameter]:
        """All tensors but the teacher's under their names in the adapter directory."""
        named = {}
        for name, parameter in self.named_parameters():
            if not name.startswith("teacher."):
                name = name.removeprefix("peft.").removeprefix("llava.").replace(".default.", ".")
                named[name[name.index("multi_modal_projector") :] if "multi_modal_projector" in name else name] = parameter
        return dict(sorted(named.items()))

    def forward(self, samples: list[Sample], pixels: list[Tensor | None], vra_weight: float, key: int = 0) -> Output:
        rows, labels, visual, features = zip(*(self.splice(s, p) for s, p in zip(samples, pixels)))
        lengths = [len(row) for row in rows]
        embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, T, D)
        labels = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORE)  # (B, T)
        positions = torch.arange(embeds.shape[1])
        mask = (positions < torch.tensor(lengths)[:, None]).long()
        self.added = self.residual_value(embeds, visual, features)
        decoder = self.llava.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=(positions * mask),
            output_hidden_states=True,
            use_cache=False,
        )
        hidden = decoder.hidden_states
        # Entry L of the tuple is the state after the final norm, all others are the raw residual stream.
        assert hidden[-1] is decoder.last_hidden_state
        logits = self.llava.lm_head(hidden[-1])
        assert (labels != IGNORE).any(), "a micro-batch without a target has no mean"
        lm = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
        vra, targets = self.alignment(samples, hidden, visual, features, pixels)
        ross = self.reconstruction(hidden, visual, pixels, key)
        loss = lm + vra_weight * vra + self.ross["weight"] * ross
        return Output(loss, lm, vra, ross, lengths, labels, hidden, logits, list(features), targets)

    def splice(self, sample: Sample, pixels: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Embeddings (T, D) with the image's rows in place, labels (T,), mask of visual positions (T,), CLIP features."""
        embed = self.llava.get_input_embeddings()
        features = None if pixels is None else self.clip_features(pixels)
        rows, labels, visual = [], [], []
        for token, label in zip(sample.ids, sample.labels):
            if token == IMAGE:
                row = self.visual_tokens(features, pixels)
            else:
                row = embed(torch.tensor([token]))
            rows.append(row)
            labels += [label] * len(row)
            visual += [token == IMAGE] * len(row)
        n = self.max_length
        return torch.cat(rows)[:n], torch.tensor(labels)[:n], torch.tensor(visual)[:n], features

    def visual_tokens(self, features: Tensor, pixels: Tensor) -> Tensor:
        """What stands in the place of a picture. (N, D)"""
        return self.llava.model.multi_modal_projector(features)

    @torch.no_grad()
    def clip_features(self, pixels: Tensor) -> Tensor:
        """The tower's feature layers side by side, without the class token if the strategy is "default". (N, Dz)"""
        config = self.llava.config
        states = self.llava.model.vision_tower(pixels[None], output_hidden_states=True).hidden_states
        layers = config.vision_feature_layer
        features = torch.cat([states[layer] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)
        return features[0, 1 if config.vision_feature_select_strategy == "default" else 0 :]

    def residual_value(self, embeds: Tensor, visual: tuple[Tensor, ...], features: tuple[Tensor | None, ...]) -> Tensor | None:
        """What is added behind the chosen layers. (B, T, D)"""
        if not self.residual["enabled"]:
            return None
        if self.residual["positions"] == "all":
            return embeds
        value = torch.zeros_like(embeds)
        for b, at in enumerate(visual):
            if not at.any():
                continue
            # A cut picture has fewer rows left than the encoder yields.
            if self.residual_projector is None:
                rows = self.llava.model.multi_modal_projector(features[b])
            else:
                rows = self.residual_projector["linear"](features[b])
            value[b, : len(at)][at] = rows[: int(at.sum())]
        return value

    def add_residual(self, layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output + self.added

    def alignment(
        self,
        samples: list[Sample],
        hidden: tuple[Tensor, ...],
        visual: tuple[Tensor, ...],
        features: tuple[Tensor | None, ...],
        pixels: list[Tensor | None],
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Mean over contributing rows and target layers of the objective; 0 if no row contributes.

        A row contributes if it holds exactly one image's visual tokens after truncation.
        """
        targets: list[Tensor | None] = [None] * len(visual)
        if not self.vra["enabled"]:
            return torch.zeros(()), targets
        losses = []
        for b, at in enumerate(visual):
            if pixels[b] is None or not self.is_whole(at):
                continue
            if self.vra["only_coco"] and not samples[b].image.startswith("coco"):
                continue
            targets[b] = self.target(features[b], pixels[b])
            for j, layer in enumerate(self.vra["layers"]):
                states = hidden[layer][b, : len(at)][at][: self.grid() ** 2]  # (N, D)
                if self.alignment_projector is not None:
                    projector = self.alignment_projector
                    states = (projector[j] if self.vra["multiple_projectors"] else projector)(states)  # (N, d)
                losses.append(OBJECTIVES[self.vra["objective"]](states, targets[b]))
        return torch.stack(losses).mean() if losses else torch.zeros(()), targets

    def is_whole(self, visual: Tensor) -> bool:
        """Whether truncation has left all that is aligned of a picture."""
        return bool(visual.sum() == self.grid() ** 2)

    def reconstruction(
        self, hidden: tuple[Tensor, ...], visual: tuple[Tensor, ...], pixels: list[Tensor | None], key: int
    ) -> Tensor:
        """The denoiser's loss. Who has no picture, or not all of it, has states of zero; pixels of zero stand for no picture."""
        if not self.ross["enabled"]:
            return torch.zeros(())
        states = hidden[-1 if self.ross["layer"] is None else self.ross["layer"]]
        whole = torch.tensor([int(at.sum()) == self.grid() ** 2 for at in visual])
        rows = torch.stack(
            [
                states[b, : len(at)][at] if whole[b] else torch.zeros(self.grid() ** 2, states.shape[-1])
                for b, at in enumerate(visual)
            ]
        )
        side = self.llava.config.vision_config.image_size
        pictures = torch.stack([torch.zeros(3, side, side) if x is None else x for x in pixels])
        norm = (self.processor.image_mean, self.processor.image_std)
        latents = draw_latents(self.autoencoder, *self.autoencoder.posterior(pictures, norm, self.grid()), key)
        return masked_mean(self.denoiser.loss(rows, latents, self.ross["repeats"], key), whole, self.ross["masking"])

    @torch.no_grad()
    def target(self, features: Tensor, pixels: Tensor) -> Tensor:
        """What a picture's states are compared with. (N, d)"""
        match self.vra["target"]:
            case "teacher":
                return self.teacher_features(pixels)
            case "encoder":
                return features
            case "post_projection":
                return self.llava.model.multi_modal_projector(features)

    @torch.no_grad()
    def teacher_features(self, pixels: Tensor) -> Tensor:
        """The teacher's features on the grid of the visual tokens. (N, d)"""
        norm = (self.processor.image_mean, self.processor.image_std)
        return self.teacher.targets(pixels, self.vra, norm, self.grid())

    def grid(self) -> int:
        """Visual tokens along one side of an image."""
        vision = self.llava.config.vision_config
        return vision.image_size // vision.patch_size


def load_strictly(module: nn.Module, file: Path, prefix: str) -> None:
    tensors = load_file(file)
    assert all(key.startswith(prefix) for key in tensors), sorted(tensors)
    module.load_state_dict({key.removeprefix(prefix): value for key, value in tensors.items()}, strict=True)
