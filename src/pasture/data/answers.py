"""Answers in any row that has some: single outputs, pairs to compare, chosen and rejected ones."""

from collections.abc import Mapping
from dataclasses import dataclass

from pasture.core.errors import DataError
from pasture.core.foreign import made
from pasture.core.records import Completion, Instruction, content_id
from pasture.core.tables import Row, text_field
from pasture.data.dialogues import Turn, is_messages, prompt_text, turns_of_messages
from pasture.data.preferences import answered, check_both_sides


@dataclass(frozen=True)
class Answers:
    """What a row holds: one instruction, and answers to it by the suffix that tells its columns apart."""

    instruction: Instruction
    by_suffix: Mapping[str, Completion]
    """Suffixes are `_1` and `_2`, `_chosen` and `_rejected`, or empty for a single answer."""
    better: str | None = None
    """The suffix of the answer that the row says is better; None where it says nothing."""


def answers_of_row(row: Row, where: str) -> Answers:
    """The answers in a row of AlpacaFarm's, AlpacaEval's, TRL's or HH-RLHF's columns.

    Raises:
        DataError: naming `where`, if there are none, or a text is missing.
    """
    columns = set(row)
    if {"chosen", "rejected"} <= columns:
        chosen_turns, chosen = answered(row, "chosen", where)
        rejected_turns, rejected = answered(row, "rejected", where)
        if chosen_turns != rejected_turns:
            raise DataError(f"{where}: the chosen and the rejected dialogue differ before their last answer.")
        texts = {"_chosen": chosen, "_rejected": rejected}
        return _answers(prompt_text(chosen_turns), "", texts, where, better="_chosen")
    if {"output_1", "output_2"} <= columns:
        texts = {suffix: text_field(row, f"output{suffix}", where) for suffix in ("_1", "_2")}
        better = {"1": "_1", "2": "_2"}.get(str(row.get("preference")).removesuffix(".0"))
        return _answers(
            text_field(row, "instruction", where), text_field(row, "input", where, ""), texts, where, better
        )
    if "messages" in columns:
        turns = turns_of_messages(row["messages"], where)
        return _answers(*_last(turns, where), where)
    if {"prompt", "completion"} <= columns:
        turns = [*_turns(row, "prompt", "user", where), *_turns(row, "completion", "assistant", where)]
        return _answers(*_last(turns, where), where)
    if "output" in columns:
        texts = {"": text_field(row, "output", where)}
        return _answers(*_asked(row, where), texts, where)
    check_both_sides(row, where)
    raise DataError(
        f"{where}: no answer in the columns {', '.join(map(str, row))}. Expected output, output_1 and output_2, "
        "prompt and completion, messages, or chosen and rejected."
    )


def _asked(row: Row, where: str) -> tuple[str, str]:
    return text_field(row, "instruction", where), text_field(row, "input", where, "")


def _turns(row: Row, column: str, role: str, where: str) -> list[Turn]:
    if is_messages(row[column]):
        return turns_of_messages(row[column], where)
    return [Turn(role, text_field(row, column, where))]


def _last(turns: list[Turn], where: str) -> tuple[str, str, dict[str, str]]:
    if turns[-1].role != "assistant" or len(turns) < 2:
        raise DataError(f"{where}: expected a dialogue that ends with an answer of the assistant.")
    return prompt_text(turns[:-1]), "", {"": turns[-1].text}


def _answers(
    instruction: str, material: str, texts: Mapping[str, str], where: str, better: str | None = None
) -> Answers:
    if not instruction.strip():
        raise DataError(f"{where}: the instruction is empty. Remove the row.")
    identity = content_id(instruction, material)
    completions = {
        suffix: made(Completion, where, instruction_id=identity, text=text, system="file", seed=number)
        for number, (suffix, text) in enumerate(texts.items())
    }
    asked = made(Instruction, where, id=identity, instruction=instruction, input=material, source="file", split="file")
    return Answers(asked, completions, better)
