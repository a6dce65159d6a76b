"""Captioning on many machines, with Ray.

    import ray
    from cutline.distributed import caption_dataset

    photos = ray.data.read_parquet("s3://bucket/photos/")
    captions = caption_dataset(photos, column="url")
    captions.write_parquet("s3://bucket/captions/")

`RayCaptioner` is a `Captioner` whose work is done by a cluster; `cutline caption --ray` uses it.
"""

from cutline.distributed.captioner import RayCaptioner, RayOptions, caption_dataset
from cutline.distributed.model import ModelSource

__all__ = ["ModelSource", "RayCaptioner", "RayOptions", "caption_dataset"]
