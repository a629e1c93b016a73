"""How each kind of engine is set up: plain data, checked before a service is asked or a model is loaded."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pasture.core.errors import ModelError, RecipeError
from pasture.core.redaction import refuse_key_in_address
from pasture.engines.prices import StatedPrice
from pasture.engines.weights import weights_hash
from pasture.models.hub_names import how_to_fetch

EngineKind = Literal["api", "anthropic", "batch", "local", "vllm"]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Settings: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Address(Section):
    """Where a service is, and which key it takes."""

    base_url: str | None = None
    """None is the service's own address."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None is the service's usual one, none for other servers."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address_without_key(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        refuse_key_in_address(base_url)
        if not base_url.startswith(("http://", "https://")):
            raise RecipeError(f"the address {base_url!r} begins with neither http:// nor https://. Write it out.")
        return base_url


class ApiSettings(Section):
    """How a service is asked."""

    endpoints: Annotated[tuple[Address, ...], Field(min_length=1)] = (Address(),)
    """Addresses that serve the same models; each call goes where the fewest are in flight."""
    in_flight: Count = 50
    """Calls at once over all endpoints, each until its answer is stored; gives way where a service says that it is too
    much."""
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    timeout_seconds: Positive = 120.0
    max_attempts: Count = 8
    max_retry_seconds: Positive = 600.0
    price: StatedPrice | None = None
    """None looks it up by address and model."""
    price_unknown_ok: bool = False
    """Whether calls of unknown price may be made under a spending limit, which then does not hold for them."""
    tokenizer: str | None = None
    """Folder with the model's tokenizer.json, for logit biases; None asks the server's own /tokenize."""


class BatchSettings(Section):
    """How files of requests are answered."""

    folder: Path
    """Where the files and the state of each batch are kept; the same one finds them again."""
    address: Address = Address()
    command: tuple[str, ...] = ()
    """A program to run instead of a service, with {input} and {output} for the files, such as
    ("vllm", "run-batch", "-i", "{input}", "-o", "{output}", "--model", "org/name")."""
    requests_per_file: Annotated[int, Field(ge=1, le=50_000)] = 10_000
    poll_seconds: Positive = 30.0
    max_attempts: Count = 8
    price: StatedPrice | None = None
    """The service's ordinary price; None looks it up."""
    share_of_price: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """What a batch costs of the ordinary price."""
    length_name: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    """What the server calls the limit of the answer."""


class LocalSettings(Section):
    """Which transformers model answers, and how."""

    folder: Path
    """A `from_pretrained` folder."""
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Count = 32
    max_completion_tokens: Count = 512
    """Where a request names no limit."""
    chat_template: Path | None = None
    """A Jinja file; None takes the model's own."""


class VllmSettings(Section):
    """Which model vLLM loads, and how."""

    model: str
    """A folder or a name on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_tokens: Count | None = None
    batch_size: Count = 256
    max_completion_tokens: Count = 512
    """Where a request names no limit."""
    chat_template: Path | None = None
    """A Jinja file; None takes the model's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vllm.LLM, such as tensor_parallel_size or enforce_eager."""


EngineSettings: TypeAlias = ApiSettings | BatchSettings | LocalSettings | VllmSettings

SETTINGS: Mapping[str, type[EngineSettings]] = {
    "api": ApiSettings,
    "anthropic": ApiSettings,
    "batch": BatchSettings,
    "local": LocalSettings,
    "vllm": VllmSettings,
}
"""By kind of engine."""


def checked_settings(kind: str, table: Mapping[str, Any]) -> EngineSettings:
    """The settings that `table` holds, for an engine of that kind.

    Raises:
        RecipeError: naming the kinds there are, or the key that does not fit.
    """
    if kind not in SETTINGS:
        raise RecipeError(f"no engine {kind!r}. Kinds: {', '.join(SETTINGS)}.")
    try:
        return SETTINGS[kind].model_validate(table)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        where = ".".join(str(part) for part in first["loc"])
        what = "no such key" if first["type"] == "extra_forbidden" else first["msg"]
        raise RecipeError(
            f"engine {kind!r}: {where}: {what}. Keys: {', '.join(SETTINGS[kind].model_fields)}."
        ) from error


def model_facts(settings: EngineSettings) -> dict[str, object]:
    """What tells apart models that answer under the same name, as plain JSON; empty for services, known by name alone.

    The limit of an answer is part of it: a request need not name one.

    Raises:
        ModelError: if a local model's folder or its chat template cannot be read.
    """
    if isinstance(settings, ApiSettings | BatchSettings):
        return {}
    folder = settings.folder if isinstance(settings, LocalSettings) else Path(settings.model)
    limit = settings.max_completion_tokens
    facts: dict[str, object] = {"model": folder.name, "dtype": settings.dtype, "max_completion_tokens": limit}
    if folder.is_dir():
        facts["weights"] = weights_hash(folder)
    elif isinstance(settings, LocalSettings):
        raise ModelError(
            f"{folder}: no such folder. Name one with a model that `from_pretrained` loads.{how_to_fetch(str(folder))}"
        )
    else:
        facts["model"] = settings.model
    if isinstance(settings, VllmSettings):
        facts |= {"options": settings.options, "max_model_tokens": settings.max_model_tokens}
    if settings.chat_template is not None:
        facts["chat_template"] = hashlib.sha256(read_chat_template(settings.chat_template).encode()).hexdigest()[:16]
    return facts


def store_salt(settings: EngineSettings) -> str:
    """What to give `CachedEngine` as salt: 16 hexadecimal digits for a model of one's own, nothing for services."""
    facts = model_facts(settings)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16] if facts else ""


def read_chat_template(path: Path) -> str:
    """The text of a Jinja file.

    Raises:
        ModelError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"chat template {path}: cannot be read ({error}).") from error
