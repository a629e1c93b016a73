"""AlpacaEval 2's length-controlled win rate, fitted again from annotations.

A logistic regression of the preference on the length difference, the instruction's difficulty and a constant, held
near the taste of one judge (GPT-4, November 2023) by 1,610 extra rows: verbose and concise prompts of the reference
against itself. Because of these rows a judge without any taste for length does not come out at one half;
docs/evaluation.md measures by how much. `length_control` is this project's own answer.

Source: Dubois et al. 2024, https://arxiv.org/abs/2404.04475, equation 2; alpaca_eval 0.6.6, metrics/glm_winrate.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from pasture.core.errors import DataError
from pasture.core.records import content_id
from pasture.core.statistics import Floats, standard_error_of_mean
from pasture.core.tables import read_rows
from pasture.evaluate.board import LengthControlled
from pasture.evaluate.outcomes import Outcomes

METHOD = "AlpacaEval 2"

_EXTRA_WEIGHT = 0.2 / 2
"""Weight of an extra row: lambda over the two prompts that they come from."""


@dataclass(frozen=True, eq=False)
class Regularizer:
    """The two files that AlpacaEval 2 fits with."""

    difficulty: Floats
    """Of each instruction of the evaluation set, in its order."""
    features: Floats
    """Of the extra rows: tanh of the scaled length difference, difficulty, constant (0)."""
    credit: Floats
    """Of the extra rows: the share of a win that went to the prompted variant."""

    @classmethod
    def read(cls, difficulty_file: Path, extra_file: Path) -> "Regularizer":
        """The regularizer in `instruction_difficulty.csv` and `df_gamed.csv`.

        Raises:
            DataError: if a column is missing or holds no numbers.
        """
        difficulty = _numbers(difficulty_file, ("instruction_difficulty",))[:, 0]
        extra = _numbers(extra_file, ("std_delta_len", "instruction_difficulty", "preference"))
        features = np.column_stack([np.tanh(extra[:, 0]), extra[:, 1], np.zeros(len(extra))])
        return cls(difficulty, features, extra[:, 2])


@dataclass(frozen=True)
class AlpacaLengthControl:
    """AlpacaEval 2's result for one system."""

    rate: float
    prediction_spread: float
    """Published as `lc_standard_error`: standard deviation of the predictions over the square root of their number.
    It is no sampling error; against a bootstrap it was found 1.8 to 6 times too small."""
    weights: tuple[float, float, float]
    """Of length, difficulty and the constant."""


def by_instruction(outcomes: Outcomes, difficulty: Mapping[str, float]) -> Floats:
    """The difficulty of each entry, looked up by instruction.

    Raises:
        DataError: if an instruction has none.
    """
    missing = [name for name in np.unique(outcomes.instruction).tolist() if name not in difficulty]
    if missing:
        raise DataError(
            f"{len(missing)} instructions of {outcomes.system!r} have no difficulty (first: {missing[0]!r}). "
            "AlpacaEval's length control knows its own 805 instructions only; use the project's own for others."
        )
    return np.array([difficulty[name] for name in outcomes.instruction.tolist()])


def published_order(instructions: Sequence[str], regularizer: Regularizer) -> dict[str, float]:
    """The difficulty of each instruction, given their identities in the order of the difficulty file.

    Raises:
        DataError: if their number differs, or they are AlpacaEval's 805 in another order than the published one.
    """
    if len(instructions) != len(regularizer.difficulty):
        raise DataError(
            f"{len(instructions)} instructions, but {len(regularizer.difficulty)} difficulties. Name the file of "
            "AlpacaEval's 805 instructions, or of those that the difficulties were made for, with --instructions."
        )
    same_set = content_id(*sorted(instructions)) == _ALPACA_EVAL_SET
    if same_set and content_id(*instructions) != _ALPACA_EVAL_ORDER:
        raise DataError(
            "these are AlpacaEval's 805 instructions in another order than the difficulties. Name a file in the "
            "published order with --instructions."
        )
    return dict(zip(instructions, regularizer.difficulty.tolist(), strict=True))


_ALPACA_EVAL_ORDER, _ALPACA_EVAL_SET = "eeddbab8d6228c80", "32184d5b3cef4050"
"""`content_id` of the identities of the 805, as published and sorted."""


def controlled_rates(
    systems: Sequence[Outcomes], regularizer: Regularizer, difficulty: Mapping[str, float] | None
) -> dict[str, LengthControlled]:
    """AlpacaEval 2's rate of each system by name; difficulties by instruction, or by row where there is none.

    Raises:
        DataError: as `by_instruction`, `by_row` and `alpaca_length_control`.
    """
    rates = {}
    for outcomes in systems:
        own = by_row(outcomes, regularizer.difficulty) if difficulty is None else by_instruction(outcomes, difficulty)
        result = alpaca_length_control(outcomes, own, regularizer)
        method = f"{METHOD}, joined by row" if difficulty is None else METHOD
        rates[outcomes.system] = LengthControlled(method, result.rate, None, None, result.prediction_spread)
    return rates


def by_row(outcomes: Outcomes, difficulty: Floats) -> Floats:
    """The difficulty of each entry by its row, as alpaca_eval 0.6.6 takes it: wrong for a set with gaps.

    Published numbers of incomplete sets were made like this and come out only like this.

    Raises:
        DataError: if there are more rows than difficulties.
    """
    if len(outcomes) > len(difficulty):
        raise DataError(f"{outcomes.system!r} has {len(outcomes)} rows, the difficulties end at {len(difficulty)}.")
    return difficulty[: len(outcomes)]


def alpaca_length_control(outcomes: Outcomes, difficulty: Floats, regularizer: Regularizer) -> AlpacaLengthControl:
    """The length-controlled rate of one system; `difficulty` has an entry for each of `outcomes`.

    A system that is the reference itself gets one half.

    Raises:
        DataError: if nothing was judged or all answers differ from the reference's by the same length.
    """
    if outcomes.system == outcomes.reference:
        return AlpacaLengthControl(0.5, 0.0, (0.0, 0.0, 0.0))
    gap = outcomes.reference_length - outcomes.system_length
    spread = float(np.std(gap, ddof=1)) if len(gap) > 1 else 0.0
    judged = outcomes.judged
    if not judged.any() or spread == 0:
        raise DataError(f"{outcomes.system!r}: length control needs judgements and answers of different lengths.")
    ones = np.ones(len(outcomes))
    own = np.column_stack([np.tanh(gap / spread), difficulty, ones])[judged]
    features = np.vstack([regularizer.features, own])
    credit = np.concatenate([regularizer.credit, outcomes.credit[judged]])
    weight = np.concatenate([np.full(len(regularizer.credit), _EXTRA_WEIGHT), np.ones(len(own))])
    coefficients = _fit(features, credit, weight)
    predictions = expit(np.column_stack([np.zeros(len(outcomes)), difficulty, ones]) @ coefficients)
    length, hardness, constant = coefficients.tolist()
    return AlpacaLengthControl(
        float(predictions.mean()), standard_error_of_mean(predictions), (length, hardness, constant)
    )


def _fit(features: Floats, credit: Floats, weight: Floats) -> Floats:
    """Coefficients of the penalized regression, its strength chosen by five folds.

    A credit between 0 and 1 stands as two rows, won and lost, weighted by its share; both stay in one fold.
    """
    # Late, because scikit-learn takes a second to load and nothing else here wants it.
    from sklearn import config_context, linear_model, metrics, model_selection  # noqa: PLC0415

    rows = np.vstack([features, features])
    won = np.repeat([1, 0], len(features))
    share = np.concatenate([credit, 1 - credit])
    row_weight = np.concatenate([weight, weight])
    scorer = metrics.make_scorer(_weighted_log_loss, response_method="predict_proba", greater_is_better=False)
    with config_context(enable_metadata_routing=True):
        scorer.set_score_request(share=True, row_weight=True)
        model = linear_model.LogisticRegressionCV(
            cv=model_selection.GroupKFold(n_splits=5),
            scoring=scorer,
            l1_ratios=(1.0,),
            solver="liblinear",
            fit_intercept=False,
            random_state=123,
            use_legacy_attributes=False,
        ).set_fit_request(sample_weight=True)
        model.fit(
            rows,
            won,
            sample_weight=share * row_weight,
            groups=np.tile(np.arange(len(features)), 2),
            share=share,
            row_weight=row_weight,
        )
    coefficients: Floats = model.coef_[0]
    return coefficients


def _weighted_log_loss(won: Floats, predicted: Floats, *, share: Floats, row_weight: Floats) -> float:
    # `share` is that of the row's own class; the loss wants that of a win.
    credit = np.where(won == 1, share, 1 - share)
    bounded = np.clip(predicted, 1e-15, 1 - 1e-15)
    loss = credit * np.log(bounded) + (1 - credit) * np.log(1 - bounded)
    return -float(np.mean(loss * row_weight))


def _numbers(path: Path, columns: tuple[str, ...]) -> Floats:
    rows = read_rows(path)
    try:
        return np.array([[float(str(row[column])) for column in columns] for row in rows])
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: expected columns {', '.join(columns)} of numbers ({error}).") from error
