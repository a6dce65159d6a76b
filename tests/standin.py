"""The command line over a captioner that only reads pictures and says their names.

`python standin.py ARGS` is `cutline ARGS`. Each picture's name goes to the file that STANDIN_LOG
names, after STANDIN_DELAY seconds; the picture that STANDIN_KILL names kills the process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cutline import backends, cli
from cutline.caption import Alternative, Caption, CaptionOptions, Label
from cutline.errors import ImageError
from cutline.image import describe, load_image
from cutline.options import SearchOptions


class StandIn:
    name = "stand-in"
    search = SearchOptions()

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.name

    def stream(
        self, images: Iterable[Any], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        options = options or CaptionOptions()
        waiting = iter(images)
        while batch := list(islice(waiting, options.batch_size)):
            for image in batch:
                yield self._caption(image, options)

    def _caption(self, image: Any, options: CaptionOptions) -> Caption:
        source = describe(image)
        if os.environ.get("STANDIN_KILL") == Path(source).name:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("STANDIN_DELAY", 0)))
        if log := os.environ.get("STANDIN_LOG"):
            with Path(log).open("ab") as file:
                file.write(os.fsencode(source) + b"\0")
        try:
            width, height = load_image(image).size
        except ImageError as error:
            return Caption(source=source, text="", score=0.0, model=self.name, error=error)
        ranks = range(2, (options.search or self.search).n_best + 1)
        return Caption(
            source=source,
            text=f'a "picture", {width} by {height}',
            score=-width / 7,
            model=self.name,
            alternatives=tuple(Alternative(f"another {rank}", -9.0) for rank in ranks),
            labels=tuple(Label(f"thing, {n}", 0.5**n) for n in range(1, options.labels + 1)),
        )


def load(model: str | None = None, **_: Any) -> StandIn:
    return StandIn(model)


if __name__ == "__main__":
    backends.load = load
    cli.main()
