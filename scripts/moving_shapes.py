"""Train captioners over frames on synthetic clips whose captions need time, and compare them.

    python scripts/moving_shapes.py [--steps 800] [--clips 2000]

Prints Markdown: the share of 300 new clips whose caption is exactly right, and right in its
direction ("moves left") and in its ending ("then stops").
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from cutline.data.moving_shapes import FRAMES, MovingShape, moving_shapes
from cutline.search import SearchOptions, search
from cutline.text import Vocabulary
from cutline.training.decoders import Decoder, DecoderOptions, TorchStepper, build

MODELS = {
    "one frame (the middle one)": "show-and-tell",
    "mean pooling": "mean-pooling",
    "soft attention over time": "temporal-attention",
    "S2VT": "s2vt",
}


def main() -> None:
    """Parse the arguments, train, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--clips", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, dev = [*moving_shapes(arguments.clips)], [*moving_shapes(300, seed=1)]
    words = sorted({word for clip in train for word in clip.caption.split()})
    vocabulary = Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", *words])
    print("| Captioner | whole caption | direction | ending | s |\n| --- | --: | --: | --: | --: |")
    for name, kind in MODELS.items():
        torch.manual_seed(0)
        began = time.perf_counter()
        options = DecoderOptions(kind=kind, width=192, embedding=192, dropout=0.1, word_dropout=0.0)
        decoder = build(len(vocabulary), features(train[:1], kind).shape[-1], options)
        fit(decoder, features(train, kind), tokens(train, vocabulary), arguments.steps)
        said = describe(decoder, features(dev, kind), vocabulary)
        pairs = list(zip(said, (clip.caption.split() for clip in dev), strict=True))
        right = [
            np.mean([part(ours) == part(theirs) for ours, theirs in pairs])
            for part in (tuple, direction, ending)
        ]
        shares = " | ".join(f"{100 * share:.1f} %" for share in right)
        print(f"| {name} | {shares} | {time.perf_counter() - began:.0f} |", flush=True)


def features(clips: list[MovingShape], kind: str) -> torch.Tensor:
    """(B, N, D): frames of 16 x 16 pixels, as they are; one of them for the single-frame model."""
    frames = np.stack([clip.frames for clip in clips]).astype(np.float32) / 255 - 0.75
    small = frames.reshape(len(clips), FRAMES, 16, 2, 16, 2, 3).mean(axis=(3, 5))
    flat = torch.from_numpy(small.reshape(len(clips), FRAMES, -1))
    return flat[:, FRAMES // 2 : FRAMES // 2 + 1] if kind == "show-and-tell" else flat


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
        chosen = torch.randint(len(inputs), (64,), generator=generator)
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
