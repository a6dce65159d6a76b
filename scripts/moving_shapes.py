"""Train captioners over frames on synthetic clips whose captions need time, and compare them.

    python scripts/moving_shapes.py [--steps 1500] [--clips 6000]

A small convolutional network is trained first: it reads the colour, shape and place of the object
in a single frame. Its features of each frame are the input of every captioner.

Prints Markdown: the share of 1,000 new clips whose caption is exactly right, and right in its
direction ("moves left") and in its ending ("then stops").
"""

from __future__ import annotations

import argparse
import time
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cutline.data.moving_shapes import (
    COLOURS,
    FRAMES,
    SHAPES,
    SIDE_PX,
    MovingShape,
    moving_shapes,
)
from cutline.search import SearchOptions, search
from cutline.text import Vocabulary
from cutline.training.decoders import Decoder, DecoderOptions, TorchStepper, build

MODELS = {
    "one frame (the middle one)": "show-and-tell",
    "mean pooling": "mean-pooling",
    "soft attention over time": "temporal-attention",
    "S2VT": "s2vt",
}
BATCH = 64
PLACES = 16
"""Places along each axis that the frame encoder distinguishes."""


def main() -> None:
    """Parse the arguments, train, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500, help="training steps per captioner")
    parser.add_argument("--clips", type=int, default=6000, help="clips to train on")
    parser.add_argument("--dev", type=int, default=1000, help="new clips to measure on")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--only", help="comma-separated decoder kinds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train = [*moving_shapes(arguments.clips)]
    dev = [*moving_shapes(arguments.dev, seed=1)]
    words = sorted({word for clip in train for word in clip.caption.split()})
    vocabulary = Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", *words])
    torch.manual_seed(0)
    encoder = FrameEncoder()
    encoder.fit(train, steps=1500)
    print(f"frame encoder: {encoder.report(dev)}\n", flush=True)
    seen, new = encoder.encode(train), encoder.encode(dev)
    print("| Captioner | whole caption | direction | ending | s |\n| --- | --: | --: | --: | --: |")
    for name, kind in MODELS.items():
        if arguments.only and kind not in arguments.only.split(","):
            continue
        torch.manual_seed(0)
        began = time.perf_counter()
        options = DecoderOptions(kind=kind, width=128, embedding=128, dropout=0.1, word_dropout=0.0)
        decoder = build(len(vocabulary), seen.shape[-1], options)
        fit(decoder, chosen_frames(seen, kind), tokens(train, vocabulary), arguments.steps)
        captions = describe(decoder, chosen_frames(new, kind), vocabulary)
        pairs = list(zip(captions, (clip.caption.split() for clip in dev), strict=True))
        right = [
            np.mean([part(ours) == part(theirs) for ours, theirs in pairs])
            for part in (tuple, direction, ending)
        ]
        shares = " | ".join(f"{100 * share:.1f} %" for share in right)
        print(f"| {name} | {shares} | {time.perf_counter() - began:.0f} |", flush=True)


class FrameEncoder(nn.Module):
    """Reads colour, shape, column and row of the object in one frame; no frame but this one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 48, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(48 * 16, 128), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(128, len(COLOURS) + len(SHAPES) + 2 * PLACES)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B,3,S,S) -> features (B,128)."""
        return cast(Tensor, self.trunk(frames))

    def fit(self, clips: list[MovingShape], steps: int) -> None:
        """Train on single frames of the clips."""
        frames, targets = single_frames(clips)
        optimiser = torch.optim.AdamW(self.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            chosen = torch.randint(len(frames), (2 * BATCH,), generator=generator)
            parts = self.parts(self(pixels(frames[chosen])))
            losses = [F.cross_entropy(p, targets[chosen, k]) for k, p in enumerate(parts)]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()
            optimiser.step()
            schedule.step()

    def parts(self, features: Tensor) -> tuple[Tensor, ...]:
        """features (B,128) -> logits of colour, shape, column and row."""
        return self.head(features).split([len(COLOURS), len(SHAPES), PLACES, PLACES], -1)

    @torch.no_grad()
    def report(self, clips: list[MovingShape]) -> str:
        """The share of single frames read correctly."""
        frames, targets = single_frames(clips)
        logits = [self.parts(self(pixels(part))) for part in frames.split(500)]
        right = [
            torch.cat([each[k] for each in logits]).argmax(-1) == targets[:, k] for k in range(4)
        ]
        names = ("colour", "shape", "column", "row")
        return ", ".join(
            f"{name} {100 * hit.float().mean():.1f} %"
            for name, hit in zip(names, right, strict=True)
        )

    @torch.no_grad()
    def encode(self, clips: list[MovingShape]) -> Tensor:
        """Clips -> features (B, FRAMES, 128) of unit variance."""
        frames, _ = single_frames(clips)
        features = torch.cat([self(pixels(part)) for part in frames.split(500)])
        return (features / features.std()).view(len(clips), FRAMES, -1)


def single_frames(clips: list[MovingShape]) -> tuple[Tensor, Tensor]:
    """Frames (N,S,S,3) uint8, and their classes (N,4): colour, shape, column, row."""
    frames = torch.from_numpy(np.concatenate([clip.frames for clip in clips]))
    places = np.concatenate([clip.centres for clip in clips]) * PLACES / SIDE_PX
    names = [([*COLOURS].index(c.colour), SHAPES.index(c.shape)) for c in clips]
    classes = np.concatenate(
        [np.repeat(names, FRAMES, 0), places.astype(np.int64).clip(0, PLACES - 1)], 1
    )
    return frames, torch.from_numpy(classes)


def pixels(frames: Tensor) -> Tensor:
    """(B,S,S,3) uint8 -> (B,3,S,S) around 0."""
    return frames.permute(0, 3, 1, 2).float() / 128 - 1


def chosen_frames(features: Tensor, kind: str) -> Tensor:
    """(B,N,D): all frames, or the middle one for the single-frame model."""
    middle = FRAMES // 2
    return features[:, middle : middle + 1] if kind == "show-and-tell" else features


def tokens(clips: list[MovingShape], vocabulary: Vocabulary) -> torch.Tensor:
    """(B, T) ids with bos and eos, padded."""
    rows = [
        torch.tensor([vocabulary.bos, *vocabulary.encode(clip.caption.split()), vocabulary.eos])
        for clip in clips
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.pad)


def fit(decoder: Decoder, inputs: torch.Tensor, ids: torch.Tensor, steps: int) -> None:
    """Teacher forcing with Adam and a cosine schedule."""
    optimiser = torch.optim.AdamW(decoder.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    decoder.train()
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (BATCH,), generator=generator)
        given = ids[chosen].unsqueeze(1)  # (B,1,T)
        output = decoder(inputs[chosen], given[..., :-1])
        logits = decoder.logits(output.hidden)
        loss = F.cross_entropy(logits.flatten(0, 2), given[..., 1:].flatten(), ignore_index=0)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    decoder.eval()


@torch.no_grad()
def describe(decoder: Decoder, inputs: torch.Tensor, vocabulary: Vocabulary) -> list[list[str]]:
    """The likeliest caption of each clip."""
    stepper = TorchStepper(decoder)
    found = search(
        stepper, stepper.start(inputs), len(inputs), SearchOptions(beam_size=1, no_repeat_ngram=0),
        bos=vocabulary.bos, eos=vocabulary.eos,
    )  # fmt: skip
    return [vocabulary.decode(each[0].tokens) for each in found]


def direction(words: list[str]) -> str:
    """The word after "moves"."""
    return words[words.index("moves") + 1] if "moves" in words[:-1] else ""


def ending(words: list[str]) -> list[str]:
    """The words after "then"."""
    return words[words.index("then") + 1 :] if "then" in words else []


if __name__ == "__main__":
    main()
