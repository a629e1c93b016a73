"""Anthropic's Messages service, by its own client; the extra [anthropic] brings it."""

from collections.abc import Mapping
from typing import Any

from pasture.core.errors import DependencyError, EngineError
from pasture.core.records import FinishReason
from pasture.core.requests import Reply, Request, Usage
from pasture.engines.api import ApiEngine
from pasture.engines.budget import Budget
from pasture.engines.endpoint import Dialect
from pasture.engines.settings import ApiSettings
from pasture.engines.wire import Capabilities

try:
    import anthropic
except ImportError as error:
    raise DependencyError(
        "engine 'anthropic' needs the package anthropic: pip install 'pasture[anthropic]'."
    ) from error

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filtered",
}


def anthropic_engine(settings: ApiSettings | None = None, *, budget: Budget | None = None) -> ApiEngine:
    """An engine that asks Anthropic's models: retries, limits and prices as for any other service."""
    return ApiEngine(settings, budget=budget, dialect=ANTHROPIC)


def route(_: Request) -> str:
    """The path below the base address."""
    return "/v1/messages"


def body_of(request: Request, able: Capabilities, bias_by_id: Mapping[int, float] | None) -> dict[str, Any]:
    """What is sent. There are no seeds and no log-probabilities here: replies carry None for them.

    Raises:
        EngineError: for what the service cannot do and an answer without it would be another.
    """
    lacking = {
        "takes no prompt to be continued": request.messages is None,
        "takes no logit bias": bool(bias_by_id or request.logit_bias),
        "wants max_completion_tokens": request.max_completion_tokens is None,
    }
    for what, asked in lacking.items():
        if asked:
            raise EngineError(f"model {request.model!r}: Anthropic's service {what}. Change the judge's settings.")
    messages = request.messages or ()
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_completion_tokens,
        "messages": [
            {"role": message.role, "content": message.content} for message in messages if message.role != "system"
        ],
    }
    if system:
        body["system"] = system
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None and name not in able.lacks:
            body[name] = value
    if request.json_schema is not None and able.json_form == "json_schema":
        body["output_config"] = {"format": {"type": "json_schema", "schema": request.json_schema}}
    return body | (request.extra or {})


def reply_of(answer: Mapping[str, Any]) -> Reply:
    """The reply inside a 200 answer.

    Raises:
        ValueError: if it is not of the expected form.
    """
    try:
        text = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
        counted = answer["usage"]
        cached = counted.get("cache_read_input_tokens") or 0
        written = counted.get("cache_creation_input_tokens") or 0
        finish = _FINISH.get(answer.get("stop_reason") or "", "unknown")
        return Reply(
            text=text.encode("utf-8", "replace").decode("utf-8"),
            finish_reason=finish,
            usage=Usage(
                input_tokens=counted["input_tokens"] + cached + written,
                output_tokens=counted["output_tokens"],
                cached_input_tokens=cached,
            ),
            model=str(answer.get("model") or ""),
            error="the service's safeguards refused the answer" if finish == "filtered" else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no message of the expected form ({type(error).__name__}: {error})") from None


ANTHROPIC = Dialect(
    name="anthropic",
    home_url="https://api.anthropic.com",
    home_key_env="ANTHROPIC_API_KEY",
    new_client=anthropic.AsyncAnthropic,
    omit=anthropic.Omit,
    status_error=anthropic.APIStatusError,
    timeout_error=anthropic.APITimeoutError,
    connection_error=anthropic.APIConnectionError,
    route=route,
    body_of=body_of,
    reply_of=reply_of,
)
