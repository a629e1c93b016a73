"""Records made of what others' files hold: what does not fit is an error that names the row."""

from typing import TypeVar

from pydantic import ValidationError

from pasture.core.errors import DataError
from pasture.core.records import Record

Made = TypeVar("Made", bound=Record)


def made(kind: type[Made], where: str, /, **fields: object) -> Made:
    """The record of these fields.

    Raises:
        DataError: naming `where` and the field, if one does not fit: a lone surrogate in a text, half of a cut emoji,
            is the commonest, as JSON can spell it and UTF-8 cannot.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_unicode":
            what = "holds a lone surrogate, which no text may"
        field = ".".join(map(str, first["loc"])) or kind.__name__
        raise DataError(f"{where}: {field}: {what}. Mend or remove the row.") from error
