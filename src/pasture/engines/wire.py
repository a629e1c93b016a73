"""Requests and replies as OpenAI's chat and completion services write them, and what a server is found to lack."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pasture.core.records import FinishReason
from pasture.core.requests import Reply, Request, TokenLogprob, Usage

LOG = logging.getLogger("pasture.engines")

LOWEST_LOGPROB = -9999.0
"""What OpenAI writes for minus infinity, which JSON cannot."""

_NOT_SUPPORTED = re.compile(
    r"support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|not available|extra (inputs|fields)"
)
_MALFORMED = re.compile(r"\bvalidation error")
"""Of a request, by pydantic; the server of llama-cpp-python says so under status 500."""
_ONE_REQUEST_ONLY = re.compile(
    r"context.?length|too long|too many tokens|maximum.{0,20}tokens|string_above_max|prompt is"
)
_FILTERS = re.compile(r"content.?filter|content.?policy|moderation|safety|invalid_prompt")
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "filtered", "eos": "stop"}


@dataclass
class Refusal:
    """A 4xx answer, or what should be one, in the service's own words."""

    status: int
    message: str
    code: str = ""
    param: str = ""

    @classmethod
    def of(cls, status: int, body: object) -> "Refusal":
        """Read from whatever the service sent."""
        error = body.get("error", body) if isinstance(body, Mapping) else body
        if not isinstance(error, Mapping):
            return cls(status, str(error)[:2000])
        message = error.get("message") or error.get("detail") or json.dumps(error)
        return cls(status, str(message)[:2000], str(error.get("code") or ""), str(error.get("param") or ""))

    @property
    def concerns_one_request(self) -> bool:
        """Whether other requests would have been answered."""
        return self.filtered or bool(_ONE_REQUEST_ONLY.search(f"{self.code} {self.message}".lower()))

    @property
    def malformed(self) -> bool:
        """Whether the service calls a request that it could not take apart an error of its own."""
        return self.status == 500 and bool(_MALFORMED.search(self.message.lower()))

    @property
    def filtered(self) -> bool:
        """Whether a content filter spoke."""
        return bool(_FILTERS.search(f"{self.code} {self.message}".lower()))


@dataclass
class Capabilities:
    """What one server takes for one model, as far as its answers have told."""

    length_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    json_form: Literal["json_schema", "json_object", "text"] = "json_schema"
    lacks: set[str] = field(default_factory=set)

    def facts(self) -> dict[str, object]:
        """For the manifest."""
        return {"length_name": self.length_name, "json_form": self.json_form, "lacks": sorted(self.lacks)}

    def learn(self, refusal: Refusal, sent: Mapping[str, Any], model: str) -> bool:
        """Take a lesson from a refusal; whether the request should be sent again, in another form.

        Only what may be left out is: sampling parameters of models that fix them, log-probabilities, the form of
        JSON. A stop text or a logit bias that is refused stays an error, since the answer would mean something else.
        """
        before = self.facts()
        said = f"{refusal.param} {refusal.message}".lower()
        form = refusal.status in (400, 404, 422) and _NOT_SUPPORTED.search(f"{refusal.code} {said}".lower())
        if form or (refusal.malformed and "'response_format'" in said):  # a value that is out of range is no lesson
            self._learn(said, refusal.param.lower(), sent)
        learned = [f"{name} = {value}" for name, value in self.facts().items() if value != before[name]]
        if learned:
            said = " ".join(refusal.message.split())[:200]
            LOG.warning("model %s: the server refused a form (%s); going on with %s", model, said, ", ".join(learned))
        return bool(learned)

    def _learn(self, said: str, param: str, sent: Mapping[str, Any]) -> None:
        if re.search(r"response_format|output_config|json|guided|schema", said):
            if "response_format" in sent:
                self.json_form = "json_object" if self.json_form == "json_schema" else "text"
                return
            if "output_config" in sent:
                self.json_form = "text"
                return
        for name in ("max_tokens", "max_completion_tokens"):
            if name in sent and (param == name or (not param and name in said)) and name not in self.lacks:
                self.lacks.add(name)
                self.length_name = "max_tokens" if name == "max_completion_tokens" else "max_completion_tokens"
                return
        for name in ("temperature", "top_p", "seed"):
            if name in sent and (param == name or (not param and name in said)):
                self.lacks.add(name)
                return
        if sent.get("logprobs") and "logprobs" in said:
            self.lacks.add("logprobs")


def route(request: Request) -> str:
    """The path below the base address."""
    return "/completions" if request.messages is None else "/chat/completions"


def body_of(request: Request, able: Capabilities, bias_by_id: Mapping[int, float] | None) -> dict[str, Any]:
    """What is sent."""
    body: dict[str, Any] = {"model": request.model}
    if request.messages is None:
        body["prompt"] = request.prompt
    else:
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    if request.max_completion_tokens is not None:
        name = "max_tokens" if request.messages is None else able.length_name
        body[name] = request.max_completion_tokens
    for field_name in ("temperature", "top_p", "seed"):
        value = getattr(request, field_name)
        if value is not None and field_name not in able.lacks:
            body[field_name] = value
    if request.stop:
        body["stop"] = list(request.stop)
    if bias_by_id:
        body["logit_bias"] = {str(token): bias for token, bias in sorted(bias_by_id.items())}
    return body | _logprobs_asked(request, able) | _json_asked(request, able) | (request.extra or {})


def _logprobs_asked(request: Request, able: Capabilities) -> dict[str, Any]:
    if request.top_logprobs is None or "logprobs" in able.lacks:
        return {}
    if request.messages is None:
        return {"logprobs": request.top_logprobs}
    return {"logprobs": True, "top_logprobs": request.top_logprobs}


def _json_asked(request: Request, able: Capabilities) -> dict[str, Any]:
    if request.json_schema is None or request.messages is None or able.json_form == "text":
        return {}
    if able.json_form == "json_object":
        return {"response_format": {"type": "json_object"}}
    form = {"name": "reply", "schema": request.json_schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def reply_of(answer: Mapping[str, Any]) -> Reply:
    """The reply inside a 200 answer; cost and times are left to the engine.

    Raises:
        ValueError: if the answer does not hold one choice of the expected form.
    """
    try:
        choice = answer["choices"][0]
        finish = _FINISH.get(choice.get("finish_reason") or "", "unknown")
        if "message" in choice:
            message = choice["message"]
            text = message.get("content") or message.get("refusal") or ""
            logprobs = _chat_logprobs(choice.get("logprobs"))
        else:
            text = choice["text"]
            logprobs = _completion_logprobs(choice.get("logprobs"))
        filtered = "the service's content filter cut the answer" if finish == "filtered" else None
        return Reply(
            text=_clean(text),
            finish_reason=finish,
            logprobs=logprobs,
            usage=_usage(answer.get("usage")),
            model=_clean(str(answer.get("model") or "")),
            error=filtered,
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"no choice of the expected form ({type(error).__name__}: {error})") from None


def _usage(block: Mapping[str, Any] | None) -> Usage | None:
    if not block:
        return None
    details = block.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=block["prompt_tokens"],
        output_tokens=block.get("completion_tokens") or 0,
        cached_input_tokens=details.get("cached_tokens") or 0,
    )


def _chat_logprobs(block: Mapping[str, Any] | None) -> tuple[TokenLogprob, ...] | None:
    content = (block or {}).get("content")
    if content is None:
        return None
    return tuple(
        TokenLogprob(
            token=_clean(entry["token"]),
            logprob=_finite(entry["logprob"]),
            top=_ranked((other["token"], other["logprob"]) for other in entry.get("top_logprobs") or ()),
        )
        for entry in content
    )


def _completion_logprobs(block: Mapping[str, Any] | None) -> tuple[TokenLogprob, ...] | None:
    if not block or block.get("tokens") is None:
        return None
    tops = block.get("top_logprobs") or [None] * len(block["tokens"])
    return tuple(
        TokenLogprob(token=_clean(token), logprob=_finite(logprob), top=_ranked((top or {}).items()))
        for token, logprob, top in zip(block["tokens"], block["token_logprobs"], tops, strict=True)
    )


def _ranked(pairs: Any) -> tuple[tuple[str, float], ...]:
    ranked = sorted(((_clean(token), _finite(value)) for token, value in pairs), key=lambda pair: -pair[1])
    return tuple(ranked)


def _finite(value: float | None) -> float:
    return LOWEST_LOGPROB if value is None else max(float(value), LOWEST_LOGPROB)


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can smuggle in and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
