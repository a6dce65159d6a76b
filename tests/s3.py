"""An S3 server on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import fsspec
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem


@dataclass(frozen=True)
class S3:
    """A running server with one bucket.

    Attributes:
        environment: variables by which S3 clients, also in other processes, find it.
        address: of the bucket, without a slash at the end.
    """

    environment: dict[str, str]
    address: str

    @property
    def files(self) -> Any:
        """The bucket's file system; it does not remember listings."""
        return fsspec.filesystem("s3", use_listings_cache=False)


@contextmanager
def running_s3() -> Iterator[S3]:
    """Run a server, with the environment set for this process too."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "no_proxy": "127.0.0.1",
    }
    try:
        with patch.dict(os.environ, environment):
            S3FileSystem.clear_instance_cache()  # they keep the server of an earlier test
            bucket = f"test-{uuid4().hex[:12]}"  # servers of one process share their data
            s3 = S3(environment, f"s3://{bucket}")
            s3.files.makedirs(bucket)
            yield s3
    finally:
        server.stop()
