"""A captioner that is loaded when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cutline import backends
from cutline.backends.servers import is_server
from cutline.bundle import find
from cutline.caption import BaseCaptioner, Caption, Captioner, CaptionOptions, Picture
from cutline.options import SearchOptions

if TYPE_CHECKING:
    from cutline.backends.chat_client import ConnectionOptions


class LazyCaptioner(BaseCaptioner):
    """A captioner whose model is loaded when it is first used, and whose name is known before.

    Args:
        name: the name that the loaded captioner is expected to have.
        load: loads it; called once, from the thread that uses it first.
        language: the only language in which it writes; "" if that is not known.
    """

    def __init__(self, name: str, load: Callable[[], Captioner], language: str = "") -> None:
        self._name = name
        self.language = language
        self._load = load
        self._loaded: Captioner | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The model's name: the expected one until the model is loaded."""
        return self._loaded.name if self._loaded else self._name

    @property
    def search(self) -> SearchOptions:
        """How the model searches by default; loads it."""
        return self.load().search

    def load(self) -> Captioner:
        """The captioner itself, loaded if it is not yet.

        Raises:
            CutlineError: as `backends.load`.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images in order: see `Captioner.stream`."""
        return self.load().stream(images, options)


def load_lazily(
    model: str | Path | None = None,
    *,
    engine: str = "auto",
    threads: int | None = None,
    connection: ConnectionOptions | None = None,
    key: str | None = None,
) -> Captioner:
    """Find a model, and load it only when it is first used.

    Bundles and models of the hub are loaded lazily. The client of a remote model needs no loading.
    A hub model in a local folder is loaded at once, because its name is not known before.

    Args:
        model, engine, threads, connection, key: as for `backends.load`.

    Raises:
        BundleNotFoundError: there is no such model.
        BundleError: it is damaged or of an unknown kind.
        OptionError: the URL of a remote model names no model.
    """
    load = partial(
        backends.load, model, engine=engine, threads=threads, connection=connection, key=key
    )
    if is_server(model):
        return load()
    if not backends.is_bundle(model):
        name = str(model).removeprefix("hub:")
        on_hub = name != model and not Path(name).expanduser().is_absolute()
        if on_hub and not name.startswith(".") and not Path(name).is_dir():
            return cast(Captioner, LazyCaptioner(name, load, "en"))
        return load()
    return cast(Captioner, LazyCaptioner(find(model).manifest.name, load))
