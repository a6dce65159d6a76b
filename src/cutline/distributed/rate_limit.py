"""One rate limit and one budget for the requests of all workers to a model's server."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from cutline.backends.chat_client import ChatClient, ConnectionOptions
from cutline.backends.openai import RemoteCaptioner
from cutline.backends.retry import Budget, Pace, Usage
from cutline.backends.servers import parse_model
from cutline.caption import Captioner
from cutline.distributed.ray_import import import_ray

if TYPE_CHECKING:
    from cutline.prompts import Prompt

_CHECK_S = 5.0
_LEASE_MARGIN_S = 60.0


class RequestLimiter:
    """Lets requests of all workers through, as many at a time as one `Pace` allows.

    A worker that dies keeps its turns until their lease ends.

    Args:
        limit: requests at a time, of all workers together.
        budget: requests and tokens of all workers together.
        lease_s: the longest time that one request takes, seconds.
    """

    def __init__(self, limit: int, budget: Budget, lease_s: float) -> None:
        self._pace = Pace(limit)
        self._budget = budget
        self._lease_s = lease_s
        self._usage = Usage()
        self._leases: dict[str, deque[float]] = {}
        self.most_active = 0

    async def enter(self, worker: str) -> None:
        """Wait for a turn.

        Raises:
            BudgetError: a limit of the run is reached.
        """
        while True:
            self._usage.check(self._budget)
            try:
                await asyncio.wait_for(self._pace.enter(), _CHECK_S)
                break
            except TimeoutError:
                await self._end_leases()
        self._usage.requests += 1
        self._leases.setdefault(worker, deque()).append(time.monotonic() + self._lease_s)
        self.most_active = max(self.most_active, sum(map(len, self._leases.values())))

    async def leave(self, worker: str, prompt_tokens: int, completion_tokens: int) -> None:
        """End a turn, and count the tokens used since the worker's last turn ended."""
        self._usage.prompt_tokens += prompt_tokens
        self._usage.completion_tokens += completion_tokens
        if self._leases.get(worker):
            self._leases[worker].popleft()
            await self._pace.leave()

    async def succeeded(self) -> None:
        """The server gave an answer."""
        self._pace.succeeded()

    async def pause(self, seconds: float) -> None:
        """Let nothing through for so long, and fewer requests at a time afterwards."""
        self._pace.pause(seconds)

    async def usage(self) -> tuple[Usage, int]:
        """Requests and tokens of all workers, and the most requests at a time so far."""
        return self._usage, self.most_active

    async def _end_leases(self) -> None:
        now = time.monotonic()
        for leases in self._leases.values():
            while leases and leases[0] < now:
                leases.popleft()
                await self._pace.leave()


class SharedPace(Pace):
    """A worker's side of a `RequestLimiter`.

    Args:
        limiter: the actor's handle.
        client: whose tokens are counted.
    """

    def __init__(self, limiter: Any, client: ChatClient) -> None:
        super().__init__(client.concurrency)
        self._limiter = limiter
        self._client = client
        self._worker = uuid.uuid4().hex
        self._counted = (0, 0)

    async def enter(self) -> None:
        """Wait for a turn among the requests of all workers."""
        await self._limiter.enter.remote(self._worker)

    async def leave(self) -> None:
        """End a turn."""
        usage = self._client.usage
        now = usage.prompt_tokens, usage.completion_tokens
        new = now[0] - self._counted[0], now[1] - self._counted[1]
        self._counted = now
        await self._limiter.leave.remote(self._worker, *new)

    def succeeded(self) -> None:
        """The server gave an answer."""
        super().succeeded()
        self._limiter.succeeded.remote()

    def pause(self, seconds: float) -> None:
        """Pause the requests of all workers."""
        super().pause(seconds)
        self._limiter.pause.remote(seconds)


def start_limiter(captioner: Any, connection: ConnectionOptions | None) -> Any:
    """Start the actor that limits the requests of all workers; it ends with this run.

    Args:
        captioner: the model, loaded on the driver.
        connection: its options; None is the default.
    """
    ray = import_ray()
    connection = connection or ConnectionOptions()
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RequestLimiter)
    name = f"cutline-request-limiter-{uuid.uuid4().hex[:8]}"
    return actor.options(name=name, max_concurrency=10_000).remote(
        captioner.computation["threads"],
        connection.budget,
        connection.timeout_s + _LEASE_MARGIN_S,
    )


def limited_captioner(
    model: str,
    limiter: Any,
    connection: ConnectionOptions | None,
    *,
    prompt: Prompt | None = None,
    key: str | None = None,
) -> Captioner:
    """Load a model behind a server on a worker; its requests take turns with other workers'.

    Args:
        model, connection, prompt, key: as for `cutline.load`; the model has a name.
        limiter: the actor's handle.
    """
    server, name = parse_model(model, key=key)
    options = connection or ConnectionOptions()
    client = ChatClient(server, name, options)
    client.pace = SharedPace(limiter, client)
    return RemoteCaptioner(server, name, options, prompt=prompt, client=client)
