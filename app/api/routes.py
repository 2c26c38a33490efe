"""A route of the API as one value: Flask serves it, the arguments are checked against it, OpenAPI is written from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flask import Response, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app.api.models import Answer
from app.core.charges import DIMENSIONS
from app.core.query import whole
from app.errors import InvalidInput

MOST_BODY: Final = 64 * 1024
MOST_LIMIT: Final = 1000
DATE: Final = {"type": "string", "format": "date"}
TEXT: Final = {"type": "string"}


@dataclass(frozen=True)
class Parameter:
    """An argument of the query string; `place` is "query", "path" or "header"."""

    name: str
    about: str
    schema: Mapping[str, Any] = field(default_factory=lambda: TEXT)
    required: bool = False
    repeated: bool = False
    place: str = "query"
    example: str | None = None


@dataclass(frozen=True)
class Route:
    """`view` takes the checked (name, value) pairs and the path's values. `parameters` None: any are ignored."""

    method: str
    path: str
    view: Callable[..., Response]
    summary: str
    answer: type[Answer] | str
    about: str = ""
    parameters: tuple[Parameter, ...] | None = ()
    body: type[BaseModel] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()
    also_csv: bool = False
    has_tag: bool = False
    tag: str = "costs"

    @property
    def name(self) -> str:
        return f"{self.method.lower()}_{self.view.__name__}"

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it: `/api/v1/jobs/{id}`."""
        return self.path.replace("<", "{").replace(">", "}")

    def serve(self, **path: str) -> Response:
        given = Arguments() if self.parameters is None else Arguments.read(self.parameters, request.path)
        return self.view(given, **path)


class Arguments(list[tuple[str, str]]):
    """(name, value) pairs of a query string, every name known and none given twice unless it may be."""

    @classmethod
    def read(cls, parameters: Sequence[Parameter], path: str) -> Arguments:
        """Raises InvalidInput for an unknown name, a repeated single value and bytes that are not UTF-8."""
        known = {p.name: p for p in parameters if p.place == "query"}
        try:
            given = request.args
        except UnicodeDecodeError:
            raise InvalidInput(
                "The query string is not UTF-8. Percent-encode its values.", code="bad_request"
            ) from None
        for name, values in given.lists():
            if name not in known:
                allowed = f"Use one of: {', '.join(known)}." if known else "It takes none."
                raise InvalidInput(f"{name[:40]!r} is not a parameter of {path[:80]}. {allowed}", field=name)
            if len(values) > 1 and not known[name].repeated:
                raise InvalidInput(f"{name} is given {len(values)} times; give it once.", field=name)
        for parameter in known.values():
            if parameter.required and parameter.name not in given:
                example = f", for example {parameter.name}={parameter.example}" if parameter.example else ""
                raise InvalidInput(f"{parameter.name} is missing. Give it{example}.", field=parameter.name)
        return cls(given.items(multi=True))

    def first(self, name: str) -> str | None:
        return next((value for key, value in self if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self if key == name]

    def limit(self, default: int) -> int:
        value = self.first("limit")
        return default if value is None else whole("limit", value, 1, MOST_LIMIT)


START: Final = Parameter("start", "First day.", DATE, required=True, example="2026-10-01")
END: Final = Parameter("end", "First day that is not in the range any more.", DATE, required=True, example="2026-11-01")
CURSOR: Final = Parameter("cursor", "`next_cursor` of the page before.")
FILTERS: Final = tuple(
    Parameter(name, f"Only this {name.replace('_', ' ')}; repeat it for several.", repeated=True) for name in DIMENSIONS
)


def limit_of(default: int) -> Parameter:
    return Parameter(
        "limit",
        "Most items on a page.",
        {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": default},
    )


def one_of(name: str, about: str, values: Sequence[str], default: str | None = None) -> Parameter:
    schema: dict[str, Any] = {"type": "string", "enum": list(values)}
    return Parameter(name, about, schema | ({"default": default} if default else {}))


def answered(answer: Answer, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(answer.json_bytes(), status, dict(headers or {}), content_type="application/json")


def body_of(model: type[BaseModel], most: int = MOST_BODY) -> Any:
    """The request's body, at most so many bytes, as this model. Raises InvalidInput naming the member, 413 or 415."""
    if request.mimetype != "application/json":
        given = request.mimetype[:80] or "nothing"
        raise UnsupportedMediaType(f"Content-Type is {given}; send application/json.")
    try:
        return model.model_validate_json(_body(most))
    except ValidationError as error:
        raise wrong_member(error) from None


def _body(most: int) -> bytes:
    """A body without a length is cut off at the limit in silence: the limit is one more than we take."""
    request.max_content_length = most + 1
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        data = None
    if data is None or len(data) > most:
        raise RequestEntityTooLarge(f"The body is larger than {most} bytes.")
    return data


def wrong_member(error: ValidationError, prefix: str = "") -> InvalidInput:
    """The first thing pydantic found wrong, as our error."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(step) for step in (*([prefix] if prefix else []), *first["loc"]))[:80]
    what = first["msg"] if first["type"] != "extra_forbidden" else "is not known here"
    return InvalidInput(f"{place or 'The body'}: {what}.", field=place or None)
