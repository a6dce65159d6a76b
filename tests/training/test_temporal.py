from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cutline.data.moving_shapes import FRAMES, MOVES, moving_shapes
from cutline.data.video_readers import read_videos
from cutline.errors import DataError
from cutline.training.decoders import DecoderOptions, build
from cutline.training.decoders.core import spread

KINDS = ("mean-pooling", "temporal-attention", "s2vt")


@pytest.fixture(params=KINDS)
def decoder(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    options = DecoderOptions(kind=request.param, width=16, embedding=12, dropout=0.0)
    return build(9, 6, options).eval()


def test_steps_say_what_teacher_forcing_says(decoder: torch.nn.Module) -> None:
    features, tokens = torch.randn(2, 5, 6), torch.randint(4, 9, (2, 3, 4))
    forced = decoder(features, tokens).hidden
    memory, state = decoder.start(features)
    state = spread(state, 3)
    for place in range(4):
        hidden, _, state = decoder.advance(tokens[:, :, place], memory, state)
        assert torch.allclose(hidden, forced[:, :, place], atol=1e-5)


def test_the_order_of_frames_matters_to_those_that_read_it(decoder: torch.nn.Module) -> None:
    features, tokens = torch.randn(1, 5, 6), torch.randint(4, 9, (1, 1, 3))
    forward, backward = (decoder(each, tokens).hidden for each in (features, features.flip(1)))
    same = torch.allclose(forward, backward, atol=1e-5)
    assert same == (decoder.options.kind == "mean-pooling")


def centre(frame: np.ndarray) -> np.ndarray:
    inside = frame.astype(int).min(axis=2) < 100
    return np.argwhere(inside).mean(axis=0)[::-1]


def test_clips_move_as_their_captions_say() -> None:
    seen = set()
    for clip in moving_shapes(60):
        words = clip.caption.split()
        move, ending = words[4], " ".join(words[7:])
        seen.add(ending)
        start, middle, end = (centre(clip.frames[k]) for k in (0, FRAMES // 2 - 1, FRAMES - 1))
        direction = np.array(MOVES[move])
        assert (middle - start) @ direction > 2
        after = (end - middle) @ direction
        assert {"stops": abs(after) < 1, "comes back": after < -2, "goes on": after > 2}[ending]
    assert seen == {"stops", "comes back", "goes on"}
    assert [clip.caption for clip in moving_shapes(5)] == [
        clip.caption for clip in moving_shapes(5)
    ]


def test_msr_vtt_and_msvd_are_read(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("video0.mp4", "video1.mp4", "abc_10_20.avi"):
        (tmp_path / "videos" / name).write_bytes(b"x")
    vtt = tmp_path / "videodatainfo.json"
    names = {"video0": "train", "video1": "validate", "video2": "test"}
    videos = [{"video_id": name, "split": split} for name, split in names.items()]
    texts = [("video0", "a dog"), ("video0", "dogs"), ("video1", "a cat")]
    sentences = [{"video_id": name, "caption": text} for name, text in texts]
    vtt.write_text(json.dumps({"videos": videos, "sentences": sentences}))
    found = read_videos(vtt)
    assert {name: [each.captions for each in split] for name, split in found.splits.items()} == {
        "train": [("a dog", "dogs")],
        "dev": [("a cat",)],
    }
    msvd = tmp_path / "video_corpus.csv"
    msvd.write_text(
        "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
        "abc,10,20,1,clean,5,English,A dog runs.\nabc,10,20,2,clean,5,German,Ein Hund.\n"
        "xyz,1,2,2,clean,5,English,Not there.\n"
    )
    [example] = read_videos(msvd).splits["train"]
    assert (example.image.name, example.captions) == ("abc_10_20.avi", ("A dog runs.",))


@pytest.mark.parametrize("content", ["{", "[]", '{"videos": [], "sentences": []}'])
def test_another_form_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "videodatainfo.json"
    path.write_text(content)
    with pytest.raises(DataError):
        read_videos(path)
    with pytest.raises(DataError):
        read_videos(tmp_path / "none.csv")
