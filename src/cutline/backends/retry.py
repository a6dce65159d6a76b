"""Retries after 429 and other temporary errors, and pausing all requests of a run."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cutline import http_retry
from cutline.errors import BudgetError, OptionError
from cutline.http_retry import BUSY, GATEWAY

_TRANSIENT = GATEWAY | {409, 500, *range(520, 528), 530, 598, 599}
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:(ms)|(s)(?:ec(?:ond)?s?)?|(m)(?:in(?:ute)?s?)?|(h)(?:ours?)?)(?![a-z])"
)
_TRY_AGAIN = re.compile(
    r"(?:try again in|retry in|retry after|retryDelay\W+|retry_after\W+)\s*"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|seconds?|sec|s|minutes?|min|m|hours?|h)\s*)+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RetryOptions:
    """How long failed requests are repeated.

    Raises:
        OptionError: an option is out of its range.
    """

    wait_s: float = 300.0
    """Longest time without any answer before the run ends, seconds, while a server is busy."""

    attempts: int = 5
    """Requests for one image while the server fails on it, the connection breaks within the
    response, or nothing comes in time."""

    first_s: float = 0.5
    """The first wait where the server names none; each further wait is twice as long."""

    longest_s: float = 30.0
    """The longest single wait where the server names none."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("wait_s", "first_s", "longest_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise OptionError(f"got {name} {value}; expected seconds from 0")
        if self.attempts < 1:
            raise OptionError(f"got attempts {self.attempts}; expected at least 1")


@dataclass(frozen=True)
class Budget:
    """What one run may use.

    Raises:
        OptionError: a limit is below 1.
    """

    max_requests: int | None = None
    """Requests, repeated ones included; None is no limit."""

    max_tokens_total: int | None = None
    """Tokens in prompts and answers, as the server counts them; None is no limit."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("max_requests", "max_tokens_total"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"got {name} {value}; expected at least 1")


@dataclass
class Usage:
    """What a run has used so far.

    Attributes:
        requests: sent, repeated ones included; `repeated` of them were repeated after a failure.
        prompt_tokens, completion_tokens: as the server counted them.
        uncounted: answers in which the server counted no tokens.
    """

    requests: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def check(self, budget: Budget) -> None:
        """Refuse one more request that the budget does not allow.

        Raises:
            BudgetError: a limit is reached.
        """
        for name, used, limit in (
            ("requests", self.requests, budget.max_requests),
            ("tokens", self.tokens, budget.max_tokens_total),
        ):
            if limit is not None and used >= limit:
                raise BudgetError(f"stopped after {used:,} {name}, the limit that was set")

    def summary(self) -> str:
        """One line for a person."""
        line = f"{self.requests:,} request{'' if self.requests == 1 else 's'}"
        if self.repeated:
            line += f" ({self.repeated:,} repeated)"
        if self.prompt_tokens or self.completion_tokens:
            line += f", {self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
        if self.uncounted:
            line += f"; the server counted no tokens for {self.uncounted:,} of them"
        return line


class Pace:
    """Lets requests through, fewer at a time while a server is busy.

    A server that asks to wait pauses every request. Each such answer halves the number of requests
    at a time; each success adds a part of one until all are allowed again.

    Args:
        limit: requests at a time.
        clock: the time, seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limit = limit
        self.clock = clock
        self._sleep = sleep
        self._allowed = float(limit)
        self._active = 0
        self._until = -math.inf
        self._changed = asyncio.Condition()
        self.busy_answers = 0
        """Answers in a row by which the server asked to come back later."""
        self.idle_since: float | None = None
        """When the present period without any success began, by the clock; None after one."""

    @property
    def allowed(self) -> int:
        """Requests at a time that are let through now."""
        return max(1, int(self._allowed))

    async def enter(self) -> None:
        """Wait for a turn: no pause is on, and fewer than `allowed` requests are under way."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._active < self.allowed)
                if (pause_s := self._until - self.clock()) <= 0:
                    self._active += 1
                    return
            await self._sleep(pause_s)

    async def leave(self) -> None:
        """End a turn."""
        async with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def succeeded(self) -> None:
        """The server gave an answer."""
        self.idle_since, self.busy_answers = None, 0
        self._allowed = min(self.limit, self._allowed + 1 / max(1.0, self._allowed))

    def failed(self) -> float:
        """The server gave none; returns for how long there was no success, seconds."""
        if self.idle_since is None:
            self.idle_since = self.clock()
        return self.clock() - self.idle_since

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long, and fewer requests at a time afterwards."""
        self.busy_answers += 1
        self._until = max(self._until, self.clock() + seconds)
        self._allowed = max(1.0, self._allowed / 2)


def is_busy(status: int, message: str) -> bool:
    """Whether the server asks to come back later: a rate limit, an overload, a model loading."""
    if status in BUSY:
        return True
    return status >= 500 and bool(_LOADING.search(message))


def is_transient(status: int, message: str) -> bool:
    """Whether the same request may well succeed in a moment."""
    return is_busy(status, message) or status in _TRANSIENT or status > 504


_LOADING = re.compile(
    r"loading (?:the )?model|model (?:is )?(?:still )?(?:being )?load|warming up|starting up"
    r"|overloaded|at capacity|over capacity|try again (?:later|in)|server busy|no slot",
    re.IGNORECASE,
)


def backoff(
    attempt: int, options: RetryOptions, jitter: Callable[[], float] = random.random
) -> float:
    """Seconds to wait before a request is repeated, with jitter from half to the whole of it.

    Args:
        attempt: 0 after the first failure.
        options: the first and the longest wait.
        jitter: a number from 0 to 1.
    """
    whole = min(options.longest_s, options.first_s * 2.0 ** min(attempt, 32))
    return whole * (0.5 + 0.5 * jitter())


def retry_after(
    headers: Mapping[str, str], message: str, now: datetime | None = None
) -> float | None:
    """Seconds that a server asks to wait; None if it does not say.

    Args:
        headers: as `http_retry.retry_after` reads them.
        message: the error's text, which may say "try again in 7.6s".
        now: the time; None takes the clock's.
    """
    if (seconds := http_retry.retry_after(headers, now)) is not None:
        return seconds
    if found := _TRY_AGAIN.search(message):
        parts = _DURATION.findall(found[1].lower())
        return sum(float(number) * _UNIT_S["".join(unit)] for number, *unit in parts)
    return None
