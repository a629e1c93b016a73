"""One judge: a prompt, a model and its decoding on one side, a strict reader of its replies on the other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Protocol

from pydantic import Field

from pasture.annotate.render import Definition, Example, Prompt, ShownPair, render
from pasture.annotate.verdicts import Reading, Readings, read_json, read_letters, read_ranking, read_token
from pasture.core.errors import JudgeReplyError, RecipeError
from pasture.core.requests import Reply, Request


class PairJudge(Protocol):
    """What a pool needs of a judge, whoever wrote its prompt."""

    @property
    def name(self) -> str:
        """Model and prompt, as they stand in every preference."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """What its verdicts depend on, as plain JSON."""
        ...

    @property
    def batch_size(self) -> int:
        """Pairs that one call may ask about."""
        ...

    @property
    def gives_probability(self) -> bool:
        """Whether its readings carry a probability."""
        ...

    @property
    def padding(self) -> ShownPair | None:
        """What fills an empty place of a call that AlpacaEval shuffled; None for judges that it knows nothing of."""
        ...

    def request(self, pairs: Sequence[ShownPair], sample: int) -> Request:
        """The call that asks about `pairs`."""
        ...

    def read(self, reply: Reply, count: int) -> Readings:
        """What the reply says of each of the `count` pairs asked about."""
        ...


class JudgeDefinition(Definition):
    """A judge as a pool file writes it."""

    prompt: str
    """Name of a shipped prompt, or path of a TOML file."""
    examples: str | None = None
    """Name of shipped examples, or path of a TOML file; None takes those that the prompt names."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes of the groups in which examples are shown, such as [1, 3]; none where empty."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    model: str | None = None
    """None takes one of the models that the user names."""
    model_place: Annotated[int, Field(ge=1)] = 1
    """Which of the user's models, from 1; the shipped pool puts the strongest first."""
    temperature: Annotated[float, Field(ge=0.0)] | None = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)]
    logit_bias: Mapping[str, float] = {}
    """By text; see `Request.logit_bias`."""
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """How often it is drawn, relative to the others."""


class Judge:
    """A judge that Pasture's prompts and readers make."""

    def __init__(
        self, title: str, model: str, definition: JudgeDefinition, prompt: Prompt, examples: Sequence[Example]
    ):
        self.title = title
        self.model = model
        self.definition = definition
        self.prompt = prompt
        if definition.batch_size > 1 and not prompt.numbered:
            raise RecipeError(
                f"judge {title!r}: batch_size {definition.batch_size} needs a prompt with numbered pairs, "
                f"and {definition.prompt!r} does not number them. Set batch_size = 1 or choose another prompt."
            )
        wanted = sum(definition.shots)
        if wanted > len(examples):
            raise RecipeError(
                f"judge {title!r}: shots {list(definition.shots)} need {wanted} examples, its file has {len(examples)}."
            )
        if wanted and not prompt.verdict and prompt.reply != "json":
            raise RecipeError(f"judge {title!r}: prompt {definition.prompt!r} shows no examples; leave out 'shots'.")
        starts = [sum(definition.shots[:index]) for index in range(len(definition.shots))]
        self.shots = [examples[start : start + size] for start, size in zip(starts, definition.shots, strict=True)]

    @property
    def name(self) -> str:
        """Model and title."""
        return f"{self.model}/{self.title}"

    @property
    def batch_size(self) -> int:
        """Pairs that one call may ask about."""
        return self.definition.batch_size

    @property
    def padding(self) -> ShownPair | None:
        """None: it asks about as many pairs as there are."""
        return None

    @property
    def gives_probability(self) -> bool:
        """Whether it is read from log-probabilities."""
        return self.prompt.reply == "token"

    @cached_property
    def identity(self) -> Mapping[str, object]:
        """Model, decoding, and the hash of prompt and examples."""
        shown = [
            self.prompt.model_dump(mode="json"),
            [[e.model_dump(mode="json") for e in shot] for shot in self.shots],
        ]
        decoding = self.definition.model_dump(mode="json", include=_DECODING)
        return {"model": self.model, "prompt": self.definition.prompt, "prompt_hash": _hash(shown), **decoding}

    @cached_property
    def _asked_by(self) -> str:
        return _hash({key: value for key, value in self.identity.items() if key != "prompt"})

    def request(self, pairs: Sequence[ShownPair], sample: int = 0) -> Request:
        """The call that asks about `pairs`, numbered from 1 in their order."""
        rendered = render(self.prompt, self.shots, pairs)
        definition = self.definition
        return Request(
            model=self.model,
            messages=rendered.messages,
            prompt=rendered.prompt,
            max_completion_tokens=definition.max_completion_tokens,
            temperature=definition.temperature,
            top_p=definition.top_p,
            logit_bias=dict(definition.logit_bias) or None,
            top_logprobs=5 if self.prompt.reply == "token" else None,
            json_schema=self._schema(len(pairs)) if self.prompt.reply == "json" else None,
            sample=sample,
            asked_by=self._asked_by,
        )

    def read(self, reply: Reply, count: int) -> Readings:
        """What the reply says of each pair asked about."""
        kind, ties = self.prompt.reply, self.prompt.ties
        if kind == "letters":
            return read_letters(reply.text, count, ties=ties)
        if kind == "json":
            return read_json(reply.text, count, ties=ties)
        names = self.prompt.labels
        try:
            reading: Reading | str = read_ranking(reply.text, names) if kind == "ranking" else read_token(reply, names)
        except JudgeReplyError as error:
            reading = str(error)
        return {1: reading}

    def _schema(self, count: int) -> dict[str, object]:
        better = {"type": "string", "enum": ["a", "b", "tie"] if self.prompt.ties else ["a", "b"]}
        fields: dict[str, object] = {"reason": {"type": "string"}, "better": better}
        if not self.prompt.numbered:
            return _object(fields)
        number = {"type": "integer", "enum": list(range(1, count + 1))}
        return _object({"verdicts": {"type": "array", "items": _object({"pair": number, **fields})}})


_DECODING = {"shots", "batch_size", "temperature", "top_p", "max_completion_tokens", "logit_bias"}


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
