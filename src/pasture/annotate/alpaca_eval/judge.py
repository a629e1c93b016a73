"""A judge made of an AlpacaEval config entry: its prompt, its decoding, its parser and processors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pasture.annotate.alpaca_eval.parsers import Parser, is_preference
from pasture.annotate.alpaca_eval.prompts import DUMMY, PromptFile
from pasture.annotate.render import ShownPair
from pasture.annotate.verdicts import Reading, Readings, Shown
from pasture.core.errors import JudgeReplyError
from pasture.core.records import content_id
from pasture.core.requests import Reply, Request


@dataclass(frozen=True)
class Extraction:
    """What a processor keeps of a JSON reply besides the verdict."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Name of the evidence by key of the reply."""

    def evidence(self, text: str) -> dict[str, Any]:
        """What was found; nothing where the reply is no JSON object."""
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError):
            loaded = None
        return {name: loaded[key] for key, name in self.keys.items() if isinstance(loaded, dict) and key in loaded}


@dataclass(frozen=True)
class AlpacaEvalJudge:
    """A judge that asks as an AlpacaEval config says."""

    name: str
    batch_size: int
    with_input: PromptFile
    without_input: PromptFile
    parser: Parser
    gives_probability: bool
    settings: Mapping[str, Any]
    """Fields of the request, the model among them."""
    config: Mapping[str, Any]
    """The entry with its prompts' text, for the identity."""
    extraction: Extraction | None = None
    shuffled: bool = True
    """Whether AlpacaEval's draws shuffle what comes together in a call."""

    @property
    def padding(self) -> ShownPair | None:
        """AlpacaEval's own, where its batches are shuffled."""
        return DUMMY if self.shuffled and self.batch_size > 1 else None

    @property
    def identity(self) -> Mapping[str, object]:
        """The hash of entry and prompts, and the model."""
        return {
            "model": self.settings["model"],
            "alpaca_eval_config": self.name,
            "config_hash": content_id(json.dumps(self.config, sort_keys=True, default=str)),
        }

    def over(self, model: str) -> "AlpacaEvalJudge":
        """The same judge asking another model."""
        return replace(self, settings={**self.settings, "model": model})

    def request(self, pairs: Sequence[ShownPair], sample: int) -> Request:
        """The call that asks about `pairs`; the prompt with an input is taken if any of them has one."""
        prompt = self.with_input if any(pair.input for pair in pairs) else self.without_input
        rendered = prompt.render(pairs)
        return Request.model_validate(
            {
                **self.settings,
                "messages": rendered.messages,
                "prompt": rendered.prompt,
                "sample": sample,
                "asked_by": str(self.identity["config_hash"]),
            }
        )

    def read(self, reply: Reply, count: int) -> Readings:
        """The parser's values for the first `count` places; if it does not find one for each place, none counts."""
        try:
            values = self.parser(reply)
        except JudgeReplyError as error:
            return dict.fromkeys(range(1, count + 1), str(error))
        if len(values) != self.batch_size:
            problem = f"expected {self.batch_size} verdicts, the parser found {len(values)} in the reply"
            return dict.fromkeys(range(1, count + 1), problem)
        evidence = self.extraction.evidence(reply.text) if self.extraction else {}
        return {number: self._reading(value, evidence) for number, value in enumerate(values[:count], start=1)}

    def _reading(self, value: Any, evidence: Mapping[str, Any]) -> Reading | str:
        if not is_preference(value):
            return f"expected a preference from 1 to 2, or 0 for a draw, got {str(value)[:40]!r}"
        if value in (0, 1.5):
            return Reading("tie", 0.5 if self.gives_probability else None, evidence)
        better: Shown = "a" if value < 1.5 else "b"
        probability = 2.0 - value if self.gives_probability or value not in (1, 2) else None
        return Reading(better, probability, evidence)
