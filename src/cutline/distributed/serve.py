"""The REST service as a Ray Serve deployment, which adds and removes replicas with the load.

    pip install "cutline[ray,serve]" "ray[serve]"
    serve run cutline.distributed.serve:app

The environment variables CUTLINE_SERVE_* apply, as for `cutline serve`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cutline.errors import MissingExtraError
from cutline.service.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.types import ASGIApp, Receive, Scope, Send


def build_deployment(
    settings: Settings | None = None,
    *,
    min_replicas: int = 1,
    max_replicas: int = 8,
    requests_per_replica: int = 8,
    cpus_per_replica: int = 1,
) -> Application:
    """The service's own ASGI application in autoscaled replicas.

    Args:
        settings: of the service; each replica applies its rate limits and caches by itself.
        min_replicas, max_replicas: between how many replicas Ray Serve scales.
        requests_per_replica: Ray Serve adds replicas above, and removes them below, so many
            requests at a time for each.
        cpus_per_replica: cores, and threads, of each replica.

    Raises:
        MissingExtraError: Ray Serve or the service is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("Ray Serve", "ray,serve] ray[serve") from error
    chosen = settings or Settings.from_environment(os.environ)

    def application() -> Any:
        from cutline.service.app import create_app

        return StatefulApp(create_app(chosen))

    deployment: Any = serve.deployment(
        serve.ingress(application)(),
        name="cutline",
        max_ongoing_requests=4 * requests_per_replica,
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": requests_per_replica,
        },
        graceful_shutdown_timeout_s=chosen.shutdown_timeout_s,
        ray_actor_options={"num_cpus": cpus_per_replica},
    )
    bound: Application = deployment.bind()
    return bound


class StatefulApp:
    """An ASGI application with lifespan state (ASGI 3, "state"), which Ray Serve does not keep.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the state that its start-up has left."""
        lifespan = scope["type"] == "lifespan"
        state = self._state if lifespan else dict(self._state)
        await self._app({**scope, "state": state}, receive, send)


def app(arguments: dict[str, str]) -> Application:
    """The deployment with settings from the environment, for `serve run` and KubeRay.

    Args:
        arguments: of `build_deployment`, such as "max_replicas=20".
    """
    numbers: dict[str, Any] = {name: int(value) for name, value in arguments.items()}
    return build_deployment(**numbers)
