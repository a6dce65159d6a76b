"""Requests and responses of the REST API, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cutline.fetch import MAX_URL_CHARS
from cutline.options import SearchOptions, help_of
from cutline.site.decide.alt_text import WordingOptions
from cutline.site.model import Kind, Origin, Purpose

MAX_BEAM = 20
MAX_LABELS = 50
MAX_CONTEXT = 4000
MAX_URL = MAX_URL_CHARS
MAX_NAME = 255


def _flag(value: Any) -> Any:
    """Accept only `true` and `false` in a form or a query, not `0`, `on` or `yes`."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("expected true or false")
    return value


Flag = Annotated[bool, BeforeValidator(_flag)]
_A_URL: dict[str, Any] = {
    "min_length": 1,
    "max_length": MAX_URL,
    "description": "An http or https URL of a public host; redirects are followed.",
    "examples": ["https://example.org/dog.jpg"],
}
_NULL: dict[str, Any] = {"type": "null"}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Options(_Model):
    """How images are captioned; omitted options take the model's defaults."""

    beam: Annotated[
        int | None,
        Field(ge=1, le=MAX_BEAM, description=help_of(SearchOptions, "beam_size")),
    ] = None
    n_best: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_BEAM,
            description=help_of(SearchOptions, "n_best") + " At most `beam` unless sampling.",
        ),
    ] = 1
    length_penalty: Annotated[
        float | None,
        Field(ge=0, le=10, description=help_of(SearchOptions, "length_penalty")),
    ] = None
    temperature: Annotated[
        float | None,
        Field(ge=0.01, le=10, description=help_of(SearchOptions, "temperature")),
    ] = None
    top_p: Annotated[
        float | None,
        Field(gt=0, le=1, description=help_of(SearchOptions, "top_p")),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, le=2**53 - 1, description=help_of(SearchOptions, "seed")),
    ] = None
    labels: Annotated[
        int, Field(ge=0, le=MAX_LABELS, description="ImageNet labels for each image.")
    ] = 5
    attention: Annotated[
        Flag, Field(description="Also return the attention of the model for each word.")
    ] = False
    alt: Annotated[
        Flag, Field(description="Also draft an alt text, as POST /v1/alt does without a page.")
    ] = False
    context: Annotated[
        str,
        Field(
            max_length=MAX_CONTEXT,
            description="Text near every image; its words that the model knows are favored.",
            examples=["Our dog Rex at the lake"],
        ),
    ] = ""


class UrlQuery(Options):
    """One image by URL, with the options."""

    url: Annotated[str, Field(**_A_URL)]


class ImageSource(_Model):
    """One image: by URL or as Base64."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["url"], "properties": {"url": {"type": "string"}, "base64": _NULL}},
                {
                    "required": ["base64"],
                    "properties": {"base64": {"type": "string"}, "url": _NULL},
                },
            ]
        }
    )

    url: Annotated[str | None, Field(**_A_URL)] = None
    base64: Annotated[
        str | None, Field(min_length=1, description="The file's bytes, Base64 (RFC 4648, 4).")
    ] = None
    name: Annotated[
        str | None, Field(max_length=MAX_NAME, description="The name of the image in the response.")
    ] = None
    context: Annotated[
        str | None,
        Field(
            max_length=MAX_CONTEXT,
            description="Text near this image; replaces `context` of `options`.",
        ),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> ImageSource:
        if (self.url is None) == (self.base64 is None):
            raise ValueError("expected either url or base64")
        return self


class CaptionRequest(_Model):
    """Images to caption."""

    images: Annotated[list[ImageSource], Field(min_length=1)]
    options: Options = Options()


class PageContext(_Model):
    """The context of an image on a page; every field is optional."""

    page: Annotated[str, Field(max_length=MAX_URL, description="The page's URL.")] = ""
    kind: Annotated[
        Kind,
        Field(
            description=f"The element that shows the image: {', '.join(Kind)}.", examples=["img"]
        ),
    ] = Kind.IMG
    source: Annotated[
        str, Field(max_length=MAX_URL, description="What `src` says.", examples=["/img/rex.jpg"])
    ] = ""
    alt: Annotated[
        str | None,
        Field(max_length=MAX_CONTEXT, description="The present alt; null if there is none."),
    ] = None
    name: Annotated[
        str, Field(max_length=MAX_CONTEXT, description="The name aria-label and its kin give.")
    ] = ""
    title: Annotated[str, Field(max_length=MAX_CONTEXT, description="Its title attribute.")] = ""
    role: Annotated[str, Field(max_length=100, description="Its role attribute.")] = ""
    hidden: Annotated[Flag, Field(description="aria-hidden or not displayed.")] = False
    width_px: Annotated[int | None, Field(ge=0, le=100_000, description="As the page says.")] = None
    height_px: Annotated[int | None, Field(ge=0, le=100_000, description="As the page says.")] = (
        None
    )
    link: Annotated[
        str, Field(max_length=MAX_URL, description="Where the link around it leads.")
    ] = ""
    link_text: Annotated[
        str, Field(max_length=MAX_CONTEXT, description="The link's or button's other text.")
    ] = ""
    button: Annotated[Flag, Field(description="Whether the image is in a button, or is one.")] = (
        False
    )
    caption: Annotated[str, Field(max_length=MAX_CONTEXT, description="Its figcaption's text.")] = (
        ""
    )
    heading: Annotated[
        str, Field(max_length=MAX_CONTEXT, description="The nearest heading before it.")
    ] = ""
    before: Annotated[str, Field(max_length=MAX_CONTEXT, description="Text before it.")] = ""
    after: Annotated[str, Field(max_length=MAX_CONTEXT, description="Text after it.")] = ""
    beside: Annotated[
        str,
        Field(
            max_length=MAX_CONTEXT,
            description="Text in the same paragraph, list item or cell; an icon beside text is "
            "decorative.",
        ),
    ] = ""
    page_title: Annotated[str, Field(max_length=MAX_CONTEXT, description="The page's title.")] = ""
    language: Annotated[
        str, Field(max_length=100, description="The page's language.", examples=["en"])
    ] = ""


class AltOptions(_Model):
    """How drafts are worded."""

    max_chars: Annotated[
        int, Field(ge=1, le=1000, description="Longest draft; words beyond are left out.")
    ] = WordingOptions.max_chars
    threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Below this confidence nothing is suggested; null: it always is.",
        ),
    ] = WordingOptions.threshold
    sentence: Annotated[Flag, Field(description="Whether descriptions end in a full stop.")] = (
        WordingOptions.sentence
    )
    glossary: Annotated[
        str,
        Field(
            max_length=MAX_CONTEXT,
            description="What this site calls things, a line each.",
            examples=["sheep = alpaca"],
        ),
    ] = ""
    context_nats: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="How much the caption favours words of the page; 0: not at all.",
        ),
    ] = WordingOptions.context_nats


class AltRequest(_Model):
    """An image and its context on a page."""

    image: Annotated[
        ImageSource | None,
        Field(description="If omitted, only the page's content decides."),
    ] = None
    use: PageContext = PageContext()
    options: AltOptions = AltOptions()


class FieldError(BaseModel):
    """One invalid field."""

    where: str
    message: str


class ProblemDetails(BaseModel):
    """A problem in the form of RFC 9457."""

    type: Annotated[str, Field(description="Where the kind of problem is described.")]
    title: str
    status: int
    code: Annotated[str, Field(description="Stable; see /v1/problems.")]
    detail: Annotated[str, Field(description="What is wrong here and what to do.")]
    errors: Annotated[list[FieldError] | None, Field(description="Which fields, if any.")] = None


class Alternative(BaseModel):
    """Another caption of the same image."""

    caption: str
    score: float


class Label(BaseModel):
    """One of the 1,000 ImageNet classes."""

    name: str
    probability: Annotated[float, Field(ge=0, le=1)]


class ImageKind(BaseModel):
    """What kind of image it is: a photograph, a screenshot, a chart and so on."""

    name: str
    probability: Annotated[float, Field(ge=0, le=1)]


class Attention(BaseModel):
    """Attention of the model for each word."""

    grid: Annotated[
        list[int] | None, Field(description="Rows and columns of regions; null if it has none.")
    ]
    words: list[str]
    weights: Annotated[
        list[list[float]], Field(description="For each word, of each region, row by row.")
    ]


class Word(BaseModel):
    """A word of a draft and its origin."""

    word: str
    origin: Origin


class AltDraft(BaseModel):
    """The purpose of an image and a suggestion for its alt."""

    purpose: Annotated[Purpose, Field(description="The leaf reached in the W3C decision tree.")]
    rule: Annotated[str, Field(description="The rule that decided; a stable name.")]
    evidence: Annotated[str, Field(description="The reasons, for review by a person.")]
    alt: Annotated[
        str | None,
        Field(description='The suggestion; "" is decorative; null: a person must write it.'),
    ]
    confidence: Annotated[
        float | None,
        Field(description="Measured share of correct captions among those with this score."),
    ]
    abstained: Annotated[
        bool,
        Field(description="Whether a caption was discarded because its confidence was too low."),
    ]
    words: list[Word]
    alternatives: list[str]
    notes: Annotated[list[str], Field(description="Further notes for a reviewer.")]


class Result(BaseModel):
    """The caption of one image, or a problem."""

    index: Annotated[int, Field(description="Index in the request, from 0.")]
    source: Annotated[str, Field(description="The file's name, the URL, or the name given.")]
    status: Literal["ok", "error"]
    caption: str | None
    score: Annotated[
        float | None,
        Field(
            description="Mean log-probability per token, nats; nearer 0 is surer. It does not "
            "order the alternatives: the search's length-normalised rank does.",
        ),
    ]
    alternatives: list[Alternative]
    labels: list[Label]
    kind: Annotated[
        ImageKind | None,
        Field(description="Photograph, screenshot, chart and so on; null if the model has none."),
    ] = None
    attention: Annotated[Attention | None, Field(description="Only if requested.")] = None
    alt: Annotated[AltDraft | None, Field(description="Only if requested.")] = None
    error: ProblemDetails | None = None


class AltResponse(AltDraft):
    """An alt's draft, with the caption it was made from, if it took one."""

    caption: str | None
    labels: list[str]
    model: Annotated[str, Field(description='Which model captioned; "" if none did.')]
    took_ms: Annotated[
        float, Field(description="Milliseconds from the request's headers to this response.")
    ]


class CaptionResponse(BaseModel):
    """A result for each image, in order."""

    model: str
    results: list[Result]
    took_ms: Annotated[
        float, Field(description="Milliseconds from the request's headers to this response.")
    ]


class ProblemKind(BaseModel):
    """A kind of problem."""

    code: str
    status: int
    title: str
    meaning: str


class ProblemsResponse(BaseModel):
    """Every kind of problem there is."""

    problems: list[ProblemKind]


class WowmeResponse(BaseModel):
    """The response in the tutorial's form."""

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
    """The state of the service."""

    status: Literal["ok"]


class RegionOptionsModel(_Model):
    """How regions are found and described."""

    margin: Annotated[
        float,
        Field(ge=0, le=10, description="Context on every side, as a share of the box's size."),
    ] = 0.1
    max_regions: Annotated[
        int, Field(ge=1, le=50, description="Most regions, unless boxes are given.")
    ] = 10
    caption: Annotated[
        Flag, Field(description="Also caption the whole image, and ground its nouns.")
    ] = False


class RegionRequest(_Model):
    """An image whose regions are described."""

    image: ImageSource
    boxes: Annotated[
        list[Annotated[str, Field(max_length=100)]] | None,
        Field(
            min_length=1,
            max_length=50,
            description="X,Y,WIDTH,HEIGHT in pixels or percent; without them regions are found.",
            examples=[["10,20,30,40", "10%,20%,30%,40%"]],
        ),
    ] = None
    options: RegionOptionsModel = RegionOptionsModel()


class RegionResult(BaseModel):
    """A described region."""

    bbox: Annotated[
        list[float], Field(description="x, y, width, height in pixels of the upright image.")
    ]
    phrase: str
    label: str
    confidence: float
    label_probability: float


class GroundingResult(BaseModel):
    """A noun of the caption with its box."""

    word: str
    position: int
    bbox: list[float]


class RegionsResponse(BaseModel):
    """The regions of an image, best first; for given boxes in their order."""

    source: str
    width: int
    height: int
    caption: str | None
    regions: list[RegionResult]
    groundings: list[GroundingResult]
    model: str
    took_ms: float


class VideoOptionsModel(_Model):
    """How a video is described."""

    frames: Annotated[int, Field(ge=1, le=16, description="Frames for each sentence.")] = 4
    summary: Annotated[Flag, Field(description="Also a sentence for the whole video.")] = False
