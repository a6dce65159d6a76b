"""A model that workers of a cluster load: its files from Ray's object store, or its address."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.backends import is_bundle, load
from cutline.backends.servers import is_server, parse_model
from cutline.bundle import LABEL_GRAPH, find
from cutline.caption import Captioner
from cutline.distributed.ray_import import import_ray
from cutline.errors import EngineError
from cutline.options import SearchOptions
from cutline.runtime import Runtime, choose_engine

if TYPE_CHECKING:
    from cutline.backends.chat_client import ConnectionOptions
    from cutline.prompts import Prompt


@dataclass(frozen=True)
class ModelSource:
    """What a worker needs to load the model that the driver has chosen.

    Create one with `ModelSource.of`. A bundle's files are in the object store, so that every
    worker runs the same weights and no worker needs a copy on its disk.

    Attributes:
        model: as for `cutline.load`; the bundle's name for a bundle.
        engine: of a bundle: "onnxruntime" or "openvino:PRECISION", never "auto".
        threads: of each worker.
        files: a reference to the bundle's files by name; None for other models.
        connection, prompt, key: of a model behind a server.
        limiter: the actor that limits requests of all workers to that server.
        precision: in which a bundle computes on the driver; workers with another are refused.
        version: of Cutline on the driver.
    """

    model: str
    engine: str
    threads: int
    files: Any = None
    connection: ConnectionOptions | None = None
    prompt: Prompt | None = None
    key: str | None = field(default=None, repr=False)
    limiter: Any = None
    precision: str | None = None
    version: str = field(default_factory=lambda: version("cutline"))

    @classmethod
    def of(
        cls,
        model: str | Path | None = None,
        *,
        engine: str = "auto",
        threads: int = 1,
        connection: ConnectionOptions | None = None,
        prompt: Prompt | None = None,
        key: str | None = None,
    ) -> ModelSource:
        """Choose a model on the driver, and put a bundle's files into the object store.

        Args:
            model, engine, connection, prompt, key: as for `cutline.load`.
            threads: of each worker.

        Raises:
            MissingExtraError: Ray or the engine is not installed.
            BundleError, OptionError: as for `cutline.load`.
        """
        ray = import_ray()
        if is_server(model):
            from cutline.distributed.rate_limit import start_limiter

            captioner = load(model, connection=connection, prompt=prompt, key=key)
            server, name = parse_model(str(model), key=key)
            key = server.key  # workers lack the driver's environment
            if not name:  # the server's only model
                separator = "" if str(model).endswith(":") else "#"
                model = f"{model}{separator}{captioner.name.rpartition('@')[0]}"
            limiter = start_limiter(captioner, connection)
            return cls(str(model), "server", threads, None, connection, prompt, key, limiter)
        if not is_bundle(model):
            return cls(str(model), "transformers", threads)
        bundle = find(model)
        names = ("manifest.json", *bundle.manifest.files)
        files = {name: bundle.path(name).read_bytes() for name in names}
        name, precision = choose_engine(engine)
        if name == "openvino":
            precision = precision or Runtime(bundle, engine, 1).precision
            engine = f"{name}:{precision}"
        else:
            engine, precision = name, "float32"
        return cls(bundle.name, engine, threads, ray.put(files), precision=precision)

    def load(self) -> Captioner:
        """Load the model, on a worker.

        Raises:
            EngineError: the worker has another version of Cutline, or computes in another
                precision, than the driver.
            MissingExtraError: the engine is not installed there.
        """
        if (here := version("cutline")) != self.version:
            raise EngineError(
                f"got Cutline {here} on a worker; expected {self.version}, as on the driver"
            )
        if self.limiter is not None:
            from cutline.distributed.rate_limit import limited_captioner

            return limited_captioner(
                self.model, self.limiter, self.connection, prompt=self.prompt, key=self.key
            )
        if self.files is None:
            return load(self.model, threads=self.threads)
        files: Mapping[str, bytes] = import_ray().get(self.files)
        folder = tempfile.TemporaryDirectory(prefix="cutline-", ignore_cleanup_errors=True)
        for name, content in files.items():
            Path(folder.name, name).write_bytes(content)
        captioner = load(folder.name, engine=self.engine, threads=self.threads)
        if (precision := getattr(captioner, "computation", {}).get("precision")) != self.precision:
            raise EngineError(
                f"got a worker whose processor computes in {precision}; expected {self.precision}, "
                "as on the driver; add --engine onnxruntime or --engine openvino:float32"
            )
        if LABEL_GRAPH in files:  # loaded by the first caption with labels
            captioner.model_folder = folder  # type: ignore[attr-defined]
        else:
            folder.cleanup()
        return captioner

    def describe(self) -> Description:
        """What the driver must know of the model; a bundle's engine is not started for it."""
        if self.files is not None:
            manifest = json.loads(import_ray().get(self.files)["manifest.json"])
            return Description(manifest["name"], SearchOptions(**manifest["search"]))
        captioner = load(
            self.model,
            threads=None if self.limiter is not None else self.threads,
            connection=self.connection,
            prompt=self.prompt,
            key=self.key,
        )
        if self.limiter is None:
            return Description(captioner.name, captioner.search)
        server: Any = captioner
        return Description(
            server.name,
            server.search,
            server.samples_alternatives,
            server.sampling_temperature,
            server.is_local,
            server.host,
            server.estimated_tokens(1),
        )


@dataclass(frozen=True)
class Description:
    """What the driver must know of a model.

    Attributes:
        name, search: as in `Captioner`.
        samples_alternatives, sampling_temperature, is_local, host: as in `RemoteCaptioner`.
        tokens_per_image: about how many tokens a server takes for an image.
    """

    name: str
    search: SearchOptions
    samples_alternatives: bool = False
    sampling_temperature: float = 1.0
    is_local: bool = True
    host: str | None = None
    tokens_per_image: int = 0
