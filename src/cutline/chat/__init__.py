"""Requests to chat models that see images, and the protocol of such a model.

A *dialogue* is a generator that yields requests about one image and receives an answer to each; it
returns what was learned. Dialogues do no input or output, so that they are tested without a server.

    def dialogue() -> Dialogue[str]:
        answer = yield ChatRequest("What colour is the door?")
        return answer.text

    [colour] = model.converse([("door.jpg", dialogue())])
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from cutline.errors import CutlineError
from cutline.image import ImageSource, Limits

T = TypeVar("T")


@dataclass(frozen=True)
class ChatRequest:
    """What a chat model is asked about an image.

    Attributes:
        prompt: the text of the user's message; the image follows it.
        system: the text of the system message; "" sends none.
        schema: the JSON schema of the answer; None asks for plain text. A server without structured
            output ignores it, so that the answer must be checked.
        schema_name: a short name for the schema, letters and underscores.
    """

    prompt: str
    system: str = ""
    schema: Mapping[str, Any] | None = None
    schema_name: str = "answer"


@dataclass(frozen=True)
class ChatAnswer:
    """What a chat model answered.

    Attributes:
        text: the answer without reasoning, not cleaned otherwise.
        cut: whether it was cut off at a limit of tokens.
    """

    text: str
    cut: bool = False


Dialogue: TypeAlias = Generator[ChatRequest, ChatAnswer, T]
"""Yields requests, receives answers, returns a result."""


class ChatModel(Protocol):
    """A model that answers questions about images.

    Attributes:
        name: as its answers are recorded.
    """

    name: str

    def converse(
        self,
        dialogues: Iterable[tuple[ImageSource, Dialogue[T]]],
        limits: Limits | None = None,
    ) -> Iterator[T | CutlineError]:
        """Run dialogues, several at a time, and return their results in order.

        Args:
            dialogues: each with its image.
            limits: what is refused as too large; None is the default.

        Yields:
            What each dialogue returns, or the error that ended it.

        Raises:
            ServerStoppedError: no further request can succeed.
        """
        ...


def is_chat_model(captioner: object) -> bool:
    """Whether a captioner also answers questions: whether it has `converse`."""
    return callable(getattr(captioner, "converse", None))
