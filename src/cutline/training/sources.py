"""Reads the data of a run: the collections that a recipe or the command line names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cutline.data import Collection, combine, read
from cutline.data.collection import merge
from cutline.data.region_readers import region_collection
from cutline.data.synthetic import shapes
from cutline.errors import RecipeError
from cutline.run_log import PICTURES, read_sources
from cutline.training.recipe import Recipe


def load_collection(
    recipe: Recipe,
    run: Path,
    sources: Sequence[Path] = (),
    weights: Sequence[float] = (),
    *,
    progress: Callable[[int], None] = lambda _: None,
    report: Callable[[str], object] = lambda _: None,
) -> tuple[Collection, list[Path]]:
    """The captioned images of a run, as one collection.

    Args:
        recipe: names sources and weights, if the caller does not.
        run: the run's folder, for synthetic images and the sources of an earlier call.
        sources: paths, as `cutline.data.read` reads them; of described regions, as
            `cutline.data.region_readers.read_regions` does, for encoder.features = "box".
        weights: how often an image of each source is drawn in an epoch, on average.
        progress: called with the number of images that were compared since the last call.
        report: called with each line that the user should see.

    Returns:
        the collection, and where it is; no path for synthetic images.

    Raises:
        RecipeError: there is no data, or the weights do not fit the sources.
        DataError: a source cannot be read.
    """
    paths = list(sources) or [Path(each) for each in recipe.data.sources] or read_sources(run)
    if not paths:
        if not recipe.data.made_up:
            raise RecipeError(
                "got no data; expected --data with a folder or file of captioned images"
            )
        return shapes(run / PICTURES, recipe.data.made_up), []
    chosen = tuple(weights) or recipe.data.weights
    if chosen and len(chosen) != len(paths):
        raise RecipeError(
            f"got {len(chosen)} weights for {len(paths)} sources of data; expected one for each"
        )
    if recipe.encoder.features == "box":
        return merge([region_collection(path) for path in paths], chosen), paths
    collections = [read(path) for path in paths]
    for collection in collections:
        for note in collection.notes:
            report(note)
    train = recipe.data.train
    combined = combine(collections, chosen, train=train, progress=progress)
    for line in combined.lines:
        report(line)
    return combined.collection, paths
