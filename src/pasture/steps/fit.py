"""Which instructions leave a model room for an answer: data in the wild has some that do not."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pasture.core.records import Instruction
from pasture.core.templates import TEMPLATES
from pasture.models.control_tokens import add_control_tokens, set_answer_prefix
from pasture.models.encode import NO_LIMIT, Encoder
from pasture.models.load import load_tokenizer, within_context


def fitting_ids(instructions: Iterable[Instruction], config: Any, folder: Path, template: str) -> set[str]:
    """Ids of the instructions whose prompts are within the limit of a method's `config`, for the model in `folder`.

    The limit is `max_prompt_tokens` where a method draws its own answers, else what leaves room in `max_tokens`, or in
    the model's context for a method of one's own that has neither. The control token that a method's `answer_prefix`
    puts behind every prompt takes room, too.
    """
    room = getattr(config, "max_tokens", NO_LIMIT)
    most = getattr(config, "max_prompt_tokens", None) or within_context(folder, room) - 1
    tokenizer = load_tokenizer(folder)
    if hasattr(config, "answer_prefix"):
        add_control_tokens(tokenizer, [config.answer_prefix])
        set_answer_prefix(tokenizer, config.answer_prefix)
    encoder = Encoder(tokenizer, TEMPLATES[template], max_tokens=NO_LIMIT)
    return {one.id for one in instructions if len(encoder.prompt(one)) <= most}
