"""Text in, text out: what is asked of a language model and what comes back, whoever serves it.

A `Request` is plain data that fixes one paid call completely. Its `request_hash` is the key under which the answer is
stored, so a field that is left at its default takes no part in the canonical form: adding a field later leaves the
answers of earlier runs valid. For the same reason no default may ever change; each of them means "not asked for".
"""

import hashlib
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pasture.core.records import FinishReason, NonEmpty, Record

Role = Literal["system", "user", "assistant"]
Count = Annotated[int, Field(ge=0)]


class Message(Record):
    """One turn of a conversation."""

    role: Role
    content: str


class Request(Record):
    """One question to one model: a conversation (`messages`) or a text to be continued (`prompt`), never both.

    `None` means that the service decides; nothing is sent for it.
    """

    model: NonEmpty
    """The name by which the service knows the model."""
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    seed: int | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    logit_bias: Annotated[dict[str, float], AfterValidator(lambda bias: dict(sorted(bias.items())))] | None = None
    """Bias in nats by text; engines turn the text into the ids of its tokens, or refuse where they cannot."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Alternatives whose log-probabilities come back with each token; 0 asks for the chosen token's alone."""
    json_schema: dict[str, Any] | None = None
    """The reply is to be JSON of this schema; engines fall back to JSON mode and to plain text, so check it."""
    extra: dict[str, Any] | None = None
    """Further fields of the service's own body, sent as they are, such as {"reasoning_effort": "low"}."""
    sample: Count = 0
    """Number among several answers to the same question; told apart in the store, not sent."""
    asked_by: str = ""
    """Hash of the asker's identity, such as a judge's prompt and parser: part of the key, not sent."""

    @model_validator(mode="after")
    def _conversation_or_prompt(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("exactly one of 'messages' and 'prompt' must be given")
        if self.messages is not None and not self.messages:
            raise ValueError("'messages' must hold at least one message")
        return self

    @cached_property
    def canonical_json(self) -> str:
        """The request as JSON, equal for equal requests; fields at their default are left out."""
        return self.model_dump_json(exclude_defaults=True)

    @cached_property
    def request_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal: what an answer is stored under."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()


class TokenLogprob(Record):
    """Log-probability of one generated token, in nats, and of what else could have stood there."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """Most probable first; two different tokens may spell the same text."""


class Usage(Record):
    """Tokens that a service counted."""

    input_tokens: Count
    """All of the prompt's, cached ones included."""
    output_tokens: Count
    cached_input_tokens: Count = 0


class Reply(Record):
    """What came back for one request: a text, or the reason why there is none."""

    text: str = ""
    finish_reason: FinishReason = "unknown"
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One entry for each generated token; None where they were not asked for or are not given."""
    usage: Usage | None = None
    cost_usd: Annotated[float, Field(ge=0.0)] | None = None
    """What the answer cost when it was bought; None where the price is unknown."""
    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """From the first try to the answer; waiting for a free place is not counted."""
    attempts: Count = 1
    model: str = ""
    """The model as the service named it in its answer."""
    error: str | None = None
    """Why there is no text; None where the service answered."""
    from_store: bool = False
    """Whether it was bought earlier and cost this run nothing."""

    @property
    def failed(self) -> bool:
        """Whether the service gave no answer."""
        return self.error is not None
