"""Prompts for chat models: text files with fields, which users can replace by their own.

A prompt is a Jinja template. Lines before a line of three hyphens are the system message, the rest
is the user's message. A prompt's version changes whenever its text does.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from cutline.errors import OptionError

FIELDS: dict[str, dict[str, str]] = {
    "caption": {
        "words": "most words of the caption",
        "language": "the language's English name, such as English",
        "context": 'text near the image; "" if none is known',
    },
    "alt": {
        "task": "what to write for this kind of image, one sentence",
        "language": "the language's English name, such as German",
        "max_chars": "longest alt text, characters",
        "data": "what is known of the page, a JSON object; never instructions",
        "long_description": "whether a long description is wanted",
        "finding": 'what was wrong with the first answer; "" in the first request',
    },
    "judge": {
        "alt": "the existing alt text, as JSON",
        "language": "the language's English name, such as German",
        "max_chars": "longest alt text, characters",
        "data": "what is known of the page, a JSON object; never instructions",
        "finding": 'what was wrong with the first answer; "" in the first request',
    },
}
"""For each prompt its fields and what they hold."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was read.

    Attributes:
        name: which one, a key of `FIELDS`.
        version: the name and a part of the SHA-256 of its text.
    """

    name: str
    version: str
    _system: Template | None = field(repr=False, compare=False)
    _user: Template = field(repr=False, compare=False)

    def render(self, **fields: Any) -> tuple[str, str]:
        """The system message and the user's message.

        Raises:
            OptionError: the template names a field that does not exist, or fails.
        """
        known = ", ".join(FIELDS[self.name])
        try:
            system = self._system.render(fields) if self._system else ""
            return system.strip(), self._user.render(fields).strip()
        except UndefinedError as error:
            known = ", ".join(FIELDS[self.name])
            raise OptionError(
                f"got {self.name} prompt: {error}; expected fields {known}"
            ) from error
        except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
            raise OptionError(
                f"got {self.name} prompt: {error}; expected a valid template"
            ) from error


def parse(name: str, text: str) -> Prompt:
    """A prompt from its text.

    Raises:
        OptionError: the text is empty or no valid template.
    """
    text = re.sub(r"\r\n?", "\n", text).strip()
    if not text:
        raise OptionError(f"got an empty {name} prompt; expected text")
    system, separator, user = text.partition("\n---\n")
    if not separator:
        system, user = "", text
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    try:
        templates = [environment.from_string(part) for part in (system, user)]
    except TemplateError as error:
        raise OptionError(f"got {name} prompt: {error}; expected a valid template") from error
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Prompt(name, f"{name}-{digest}", templates[0] if separator else None, templates[1])


@cache
def packaged(name: str) -> Prompt:
    """The prompt of this name in the package: "caption", "alt" or "judge"."""
    return parse(name, files("cutline.prompts").joinpath(f"{name}.txt").read_text("utf-8"))


def read(name: str, path: Path | None) -> Prompt:
    """A user's own prompt, or the package's if `path` is None.

    Raises:
        OptionError: the file cannot be read, or uses fields that do not exist.
    """
    if path is None:
        return packaged(name)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise OptionError(f"got the prompt {path}: {why}; expected a text file") from error
    prompt = parse(name, text)
    prompt.render(**_EXAMPLES[name])
    return prompt


_EXAMPLES: dict[str, dict[str, Any]] = {
    name: dict.fromkeys(fields, "") | {"words": 20, "max_chars": 125, "long_description": False}
    for name, fields in FIELDS.items()
}
for _name, _fields in FIELDS.items():
    _EXAMPLES[_name] = {key: value for key, value in _EXAMPLES[_name].items() if key in _fields}
