"""Probing a server: one image shows what the server and its model support."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass

from PIL import Image, ImageDraw

from cutline.backends import event_loop
from cutline.backends.chat_client import ChatClient, ConnectionOptions
from cutline.backends.chat_response import quote
from cutline.backends.model_list import find_model, list_models
from cutline.chat import ChatRequest
from cutline.chat.answer_text import to_sentence, without_reasoning
from cutline.errors import ServerError

_QUESTION = (
    "Which colour is the circle in this picture? Answer with a JSON object with one member, "
    '"colour", a word in English.'
)
_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
    "additionalProperties": False,
}
_OPTIONAL = {"temperature": 0.5, "seed": 1, "n": 2, "logprobs": True, "max_tokens": 500}


@dataclass(frozen=True)
class ServerReport:
    """What was found.

    Attributes:
        name: model and server, as captions record them.
        local: whether the server runs on this machine.
        listed: whether the server lists the model; None if it lists none.
        vision: whether the server says that the model accepts images; None if it does not say.
        sees: whether the model named the colour in the image; None if the answer is unclear.
        answer: what it answered, on one line.
        json: whether the answer was a JSON object of the requested form.
        several: whether one request gives several answers.
        log_probabilities: whether there is a score.
        refused: optional parameters that the server refuses.
        seconds: from the request to the answer, repeated requests included.
        prompt_tokens: as the server counts the image and the question; 0 if it does not.
        problem: why there is no answer; "" if there is one.
    """

    name: str
    local: bool
    listed: bool | None = None
    vision: bool | None = None
    sees: bool | None = None
    answer: str = ""
    json: bool = False
    several: bool = False
    log_probabilities: bool = False
    refused: tuple[str, ...] = ()
    seconds: float = 0.0
    prompt_tokens: int = 0
    problem: str = ""


def probe(
    name: str, options: ConnectionOptions | None = None, *, key: str | None = None
) -> ServerReport:
    """Send one image of a red circle with every optional parameter that Cutline knows.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: the server has several models and none is named, or the URL or key cannot be
            used.
        ServerError: no model is named and the server cannot be asked for one.
    """
    server, model = find_model(name, key=key)
    label = f"{model}@{server.label}"
    listed = vision = None
    try:
        models = {each.name: each.vision for each in list_models(server)}
        known = next((each for each in (model, f"{model}:latest") if each in models), None)
        listed, vision = known is not None, models.get(known or model)
    except ServerError:
        pass
    client = ChatClient(server, model, options or ConnectionOptions())
    request = ChatRequest(_QUESTION, schema=_SCHEMA, schema_name="colour")
    began_s = time.monotonic()
    try:
        response = event_loop.wait(client.complete(_circle(), request, _OPTIONAL))
    except ServerError as error:
        return ServerReport(label, server.is_local, listed, vision, problem=str(error))
    finally:
        event_loop.wait(client.close())
    text, _ = without_reasoning(response.choices[0].text)
    answer = to_sentence(text)
    return ServerReport(
        label,
        server.is_local,
        listed,
        vision,
        _sees(answer),
        quote(answer),
        _is_answer(text),
        len(response.choices) > 1,
        math.isfinite(response.choices[0].score),
        tuple(sorted(client.refused)),
        time.monotonic() - began_s,
        response.prompt_tokens or 0,
        "" if answer else "got an empty answer; expected a colour",
    )


def _circle() -> Image.Image:
    picture = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(picture).ellipse((48, 48, 208, 208), fill=(220, 20, 20))
    return picture


def _sees(answer: str) -> bool | None:
    colours = re.findall(
        r"\b(red|crimson|scarlet|blue|green|yellow|black|white|gr[ae]y|orange|purple|brown|pink)\b",
        answer.lower(),
    )
    if not colours:
        return None
    return bool({"red", "crimson", "scarlet"} & set(colours))


def _is_answer(text: str) -> bool:
    try:
        content = json.loads(text.strip())
    except ValueError:
        return False
    return isinstance(content, dict) and isinstance(content.get("colour"), str)
