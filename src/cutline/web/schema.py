"""What goes over the wire, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_BEAM = 20
MAX_LABELS = 50
MAX_CONTEXT = 4000
MAX_URL = 8192
MAX_NAME = 255


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Options(_Model):
    """How pictures are captioned; what is left out is the model's own way."""

    beam: Annotated[
        int | None,
        Field(ge=1, le=MAX_BEAM, description="Hypotheses kept alive; 1 is greedy search."),
    ] = None
    n_best: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_BEAM,
            description="Captions for each picture, best first; at most `beam` unless drawing.",
        ),
    ] = 1
    length_penalty: Annotated[
        float | None,
        Field(ge=0, le=10, description="Less than 1 favours short captions, more long ones."),
    ] = None
    temperature: Annotated[
        float | None,
        Field(gt=0, le=10, description="Draw at random instead: below 1 safer, above 1 wilder."),
    ] = None
    top_p: Annotated[
        float | None,
        Field(gt=0, le=1, description="Draw from the likeliest words of this much probability."),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, le=2**53 - 1, description="The same seed draws the same captions."),
    ] = None
    labels: Annotated[
        int, Field(ge=0, le=MAX_LABELS, description="ImageNet labels for each picture.")
    ] = 5
    attention: Annotated[
        bool, Field(description="Also tell where the model looked as it chose each word.")
    ] = False
    context: Annotated[
        str,
        Field(
            max_length=MAX_CONTEXT,
            description="Words that stand near every picture; those the model knows are favoured.",
        ),
    ] = ""


class UrlQuery(Options):
    """One picture by URL, with its options beside it."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_URL,
            description="An http or https URL of a public host; redirects are followed.",
            examples=["https://example.org/dog.jpg"],
        ),
    ]


class ImageSource(_Model):
    """One picture: by URL or as Base64."""

    url: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_URL,
            description="An http or https URL of a public host; redirects are followed.",
            examples=["https://example.org/dog.jpg"],
        ),
    ] = None
    base64: Annotated[
        str | None, Field(min_length=1, description="The file's bytes, Base64 (RFC 4648, 4).")
    ] = None
    name: Annotated[
        str | None, Field(max_length=MAX_NAME, description="What the answer calls it.")
    ] = None
    context: Annotated[
        str | None,
        Field(
            max_length=MAX_CONTEXT, description="Words near this picture, instead of `options`'."
        ),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> ImageSource:
        if (self.url is None) == (self.base64 is None):
            raise ValueError("expected either url or base64")
        return self


class CaptionRequest(_Model):
    """Pictures to caption."""

    images: Annotated[list[ImageSource], Field(min_length=1)]
    options: Options = Options()


class FieldError(BaseModel):
    """One field that does not fit."""

    where: str
    message: str


class ProblemDetails(BaseModel):
    """A problem as RFC 9457 has it."""

    type: Annotated[str, Field(description="Where the kind of problem is described.")]
    title: str
    status: int
    code: Annotated[str, Field(description="Stable; see /v1/problems.")]
    detail: Annotated[str, Field(description="What is wrong here and what to do.")]
    errors: Annotated[list[FieldError] | None, Field(description="Which fields, if any.")] = None


class Alternative(BaseModel):
    """Another caption of the same picture."""

    caption: str
    score: float


class Label(BaseModel):
    """One of the 1,000 ImageNet classes."""

    name: str
    probability: Annotated[float, Field(ge=0, le=1)]


class Attention(BaseModel):
    """Where the model looked as it chose each word."""

    grid: Annotated[
        list[int] | None, Field(description="Rows and columns of regions; null if it has none.")
    ]
    words: list[str]
    weights: Annotated[
        list[list[float]], Field(description="For each word, of each region, row by row.")
    ]


class Result(BaseModel):
    """What is said of one picture, or why nothing is."""

    index: Annotated[int, Field(description="Its place in the request, from 0.")]
    source: Annotated[str, Field(description="The file's name, the URL, or the name given.")]
    status: Literal["ok", "error"]
    caption: str | None
    score: Annotated[
        float | None, Field(description="Mean log-probability per token, nats; nearer 0 is surer.")
    ]
    alternatives: list[Alternative]
    labels: list[Label]
    attention: Annotated[Attention | None, Field(description="Only if asked for.")] = None
    error: ProblemDetails | None = None


class CaptionResponse(BaseModel):
    """An answer for each picture, in order."""

    model: str
    results: list[Result]
    took_ms: Annotated[float, Field(description="From the request's headers to this answer.")]


class WowmeResponse(BaseModel):
    """The tutorial's answer."""

    image: str
    caption: str


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    default: bool
    summary: str | None = None
    licence: str | None = None
    created: str | None = None
    vocabulary: int | None = None
    scores: dict[str, Any] | None = None
    search: dict[str, Any]


class ModelsResponse(BaseModel):
    """The models that are served."""

    models: list[ModelInfo]


class Health(BaseModel):
    """How the service is."""

    status: Literal["ok"]
