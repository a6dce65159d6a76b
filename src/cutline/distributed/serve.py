"""The REST service as a Ray Serve deployment, which adds and removes replicas with the load.

    pip install "cutline[ray,serve]" "ray[serve]"
    serve run cutline.distributed.serve:app

The environment variables CUTLINE_SERVE_* apply, as for `cutline serve`. `Ingress` replicas receive
requests and give them to `Captions` replicas, which hold the model. If one of these dies, its
requests are repeated on another, which is safe because no request changes anything.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from cutline.errors import MissingExtraError
from cutline.service.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.requests import Request
    from starlette.responses import Response

_ATTEMPTS = 5
_PAUSE_S = 0.2
_SCOPE = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string",
          "root_path", "headers", "client", "server")  # fmt: skip


def build_deployment(
    settings: Settings | None = None,
    *,
    min_replicas: int = 1,
    max_replicas: int = 8,
    requests_per_replica: int = 8,
    cpus_per_replica: int = 1,
    ingress_replicas: int = 1,
) -> Application:
    """The service's own ASGI application in autoscaled replicas.

    Args:
        settings: of the service; each replica applies its rate limits and caches by itself.
        min_replicas, max_replicas: between how many replicas Ray Serve scales.
        requests_per_replica: Ray Serve adds replicas above, and removes them below, so many
            requests at a time for each.
        cpus_per_replica: cores, and threads, of each replica.
        ingress_replicas: processes that receive requests; if one dies, its requests fail.

    Raises:
        MissingExtraError: Ray Serve or the service is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("Ray Serve", "ray,serve] ray[serve") from error
    chosen = settings or Settings.from_environment(os.environ)
    captions: Any = serve.deployment(
        Captions,
        max_ongoing_requests=4 * requests_per_replica,
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": requests_per_replica,
        },
        graceful_shutdown_timeout_s=chosen.shutdown_timeout_s,
        health_check_period_s=2,
        ray_actor_options={"num_cpus": cpus_per_replica},
    )
    ingress: Any = serve.deployment(
        Ingress,
        num_replicas=ingress_replicas,
        max_ongoing_requests=4 * requests_per_replica * max_replicas,
        ray_actor_options={"num_cpus": 0},
    )
    bound: Application = ingress.bind(captions.bind(chosen))
    return bound


class Captions:
    """A replica of the service's application.

    Args:
        settings: of the service.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # by Ray Serve
        from cutline.service.app import create_app

        self._app = create_app(settings)
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._state: Any = await self._lifespan.__aenter__()

    async def answer(
        self, scope: dict[str, Any], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The status, headers and body with which the application answers a request.

        Args:
            scope: of the request, as in ASGI.
            body: its whole body.
        """
        received, sent = iter([body]), []

        async def receive() -> dict[str, Any]:
            for whole in received:
                return {"type": "http.request", "body": whole, "more_body": False}
            await asyncio.Event().wait()  # the client is never gone
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app({**scope, "state": dict(self._state or {})}, receive, send)
        first, *rest = sent
        return first["status"], list(first["headers"]), b"".join(each["body"] for each in rest)


class Ingress:
    """Receives requests, and repeats those whose replica died.

    Args:
        captions: the handle of `Captions`.
    """

    def __init__(self, captions: Any) -> None:
        self._captions = captions

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        from ray.exceptions import RayActorError
        from starlette.responses import Response

        scope = {name: request.scope[name] for name in _SCOPE if name in request.scope}
        body = await request.body()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                status, headers, content = await self._captions.answer.remote(scope, body)
                break
            except RayActorError:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S * attempt)
        response = Response(content, status)
        response.raw_headers = headers
        return response


def app(arguments: dict[str, str]) -> Application:
    """The deployment with settings from the environment, for `serve run` and KubeRay.

    Args:
        arguments: of `build_deployment`, such as "max_replicas=20".
    """
    numbers: dict[str, Any] = {name: int(value) for name, value in arguments.items()}
    return build_deployment(**numbers)
