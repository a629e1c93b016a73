"""Which length control a verb is asked for, and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from pasture.core.errors import DataError
from pasture.core.records import Instruction
from pasture.evaluate.alpaca_length_control import (
    Regularizer,
    by_instruction,
    by_row,
    controlled_rates,
    published_order,
)
from pasture.evaluate.board import LengthControlled
from pasture.evaluate.length_control import length_control
from pasture.evaluate.outcomes import Outcomes

Equal = Annotated[
    bool, typer.Option("--length-control", help="Add the win rate at equal length; see docs/evaluation.md.")
]
Difficulty = Annotated[
    Path | None, typer.Option("--difficulty", help="AlpacaEval 2's length control: its instruction_difficulty.csv.")
]
Regularization = Annotated[
    Path | None, typer.Option("--regularization", help="AlpacaEval 2's length control: its df_gamed.csv.")
]
Compat = Annotated[
    str | None,
    typer.Option("--compat", help="alpaca_eval: join difficulties by row, as numbers of incomplete sets need."),
]


@dataclass(frozen=True)
class LengthControl:
    """A length control whose files are read: AlpacaEval 2's where there is a regularizer, else Pasture's own."""

    regularizer: Regularizer | None = None
    difficulty: Mapping[str, float] | None = None
    """Of each instruction; None joins AlpacaEval 2's by row."""

    def check(self, asked: Sequence[Outcomes]) -> None:
        """Refuse instructions without a difficulty; nothing of `asked` needs a judgement yet.

        Raises:
            DataError: naming the first.
        """
        if self.regularizer is None:
            return
        for outcomes in asked:
            if self.difficulty is None:
                by_row(outcomes, self.regularizer.difficulty)
            else:
                by_instruction(outcomes, self.difficulty)

    def rates(self, systems: Sequence[Outcomes]) -> dict[str, LengthControlled]:
        """The rate of each system at equal length, by name."""
        if self.regularizer is None:
            return length_control(systems, seed=0)
        return controlled_rates(systems, self.regularizer, self.difficulty)


@dataclass(frozen=True)
class LengthOptions:
    """Options: which length control is asked for."""

    title: ClassVar[str] = "Rates at equal length"
    length_control: Equal = False
    difficulty: Difficulty = None
    regularization: Regularization = None
    compat: Compat = None

    def check(self) -> None:
        """Refuse what does not go together, before anything is spent.

        Raises:
            DataError: saying which option is missing or too much.
        """
        if (self.difficulty is None) != (self.regularization is None):
            raise DataError("AlpacaEval 2's length control needs both --difficulty and --regularization.")
        if self.length_control and self.difficulty is not None:
            raise DataError("choose one: --length-control is Pasture's own, --difficulty names AlpacaEval 2's files.")
        if self.compat not in (None, "alpaca_eval"):
            raise DataError(f"--compat {self.compat!r}: expected alpaca_eval.")
        if self.compat is not None and self.difficulty is None:
            raise DataError(
                "--compat says how difficulties are joined: name their file with --difficulty, or leave it out."
            )

    def control(self, order: Sequence[Instruction]) -> LengthControl | None:
        """What is asked for, its files read; `order` is the set in the order of the difficulties."""
        if self.length_control:
            return LengthControl()
        if self.difficulty is None or self.regularization is None:
            return None
        regularizer = Regularizer.read(self.difficulty, self.regularization)
        if self.compat == "alpaca_eval":
            return LengthControl(regularizer)
        return LengthControl(regularizer, published_order([one.id for one in order], regularizer))
