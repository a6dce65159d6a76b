"""Checks that exported graphs give the same as torch: features, one step, captions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutline.errors import ParityError
from cutline.options import SearchOptions
from cutline.runtime import Runtime
from cutline.search import search
from cutline.text import Vocabulary
from cutline.training.checkpoint import Trained, with_place
from cutline.training.decoders import Decoder, TorchStepper
from cutline.training.detectors import DetectorEncoder
from cutline.training.graphs import EncoderWithLabels


def check_parity(trained: Trained, runtime: Runtime, pixels: NDArray[np.float32]) -> None:
    """Check that graphs give the same as torch: features, one step, complete captions.

    Args:
        trained: the model in torch.
        runtime: its graphs in float32.
        pixels: (B,3,S,S), images to compare on; for a detector, a single image (1,3,H,W).

    Raises:
        ParityError: they differ by more than rounding error.
    """
    if isinstance(trained.encoder, DetectorEncoder):
        check_detector(trained, runtime, pixels)
        return
    with torch.no_grad():
        features, embedding, *logits = EncoderWithLabels(trained)(torch.from_numpy(pixels))
    encoded = runtime.encode(pixels)
    _agree("features", features, encoded.features)
    _agree("embedding", embedding, encoded.embedding)
    _agree("labels", logits[0] if logits else None, encoded.logits)
    if trained.input == "box":
        theirs = map(torch.from_numpy, (encoded.features, encoded.embedding))
        mine, exported = with_place(features, embedding), with_place(*theirs).numpy()
        check_decoder(trained.decoder, runtime, mine, exported)
    else:
        check_decoder(trained.decoder, runtime, features, encoded.features)


def check_detector(trained: Trained, runtime: Runtime, pixels: NDArray[np.float32]) -> None:
    """The form of `check_parity` for a bundle whose encoder is a detector.

    Rounding can exchange boxes of equal confidence, and remove one of two that overlap by exactly
    the threshold. So each of torch's boxes is compared with the nearest one of the graph, and one
    in ten may have none; the decoder is compared on the same features.

    Args:
        trained: the model in torch.
        runtime: its graphs in float32.
        pixels: (1,3,H,W).

    Raises:
        ParityError: they differ by more than rounding.
    """
    with torch.no_grad():
        features, _, boxes = trained.encoder(torch.from_numpy(pixels))
    encoded = runtime.encode(pixels)
    assert encoded.boxes is not None
    distances = np.abs(boxes.numpy()[0][:, None] - encoded.boxes[0][None]).max(-1)  # (K,K)
    nearest = distances.argmin(1)
    same = distances.min(1) <= 1e-3
    if same.mean() < 0.9:
        raise ParityError(
            f"got {int(same.sum())} of {len(same)} boxes of torch in the graph; expected 9 of 10"
        )
    _agree("features", features[0][same], encoded.features[0][nearest[same]])
    check_decoder(trained.decoder, runtime, features, features.numpy())


def check_decoder(
    decoder: Decoder, runtime: Runtime, features: Tensor, exported: NDArray[np.float32]
) -> None:
    """The part of `check_parity` after the encoder: features (B,N,D) of torch and of the graphs."""
    bos = np.full((len(features), 1), Vocabulary.bos)
    with torch.no_grad():
        stepper = TorchStepper(decoder)
        state = stepper.start(features)
        logprobs, attention, _ = stepper.step(state, bos)
        expected = _captions(stepper, state, len(features))
    start = runtime.start(exported)
    exported_logprobs, exported_attention, _ = runtime.step(start, bos)
    _agree("logprobs", logprobs, exported_logprobs)
    _agree("attention", attention, exported_attention)
    for ours, theirs in zip(expected, _captions(runtime, start, len(features)), strict=True):
        if ours != theirs:
            raise ParityError(f"got the caption {theirs}; torch gives {ours}")


def _agree(what: str, ours: Any, theirs: NDArray[np.float32] | None) -> None:
    """Check that outputs of torch and of an engine agree."""
    if (ours is None) != (theirs is None):
        raise ParityError(f"got {what} from one of torch and ONNX; expected both or neither")
    if ours is None or theirs is None:
        return
    ours = np.asarray(ours)
    apart = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not apart <= 1e-3:
        raise ParityError(f"got {what} {apart:.2g} apart, relatively; expected at most 0.001")


def _captions(stepper: Any, state: Any, images: int) -> list[tuple[int, ...]]:
    found = search(
        stepper, state, images, SearchOptions(beam_size=3),
        bos=Vocabulary.bos, eos=Vocabulary.eos, banned=Vocabulary.unsayable,
    )  # fmt: skip
    return [hypotheses[0].tokens for hypotheses in found]
