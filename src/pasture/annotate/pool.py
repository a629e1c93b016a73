"""Judges on language models behind the annotator's door: comparisons in, one preference for each out.

Conventions, for every judge and every entry point:

- Completions with the same text are a tie; nobody is asked.
- A pair that several rows hold is asked about once.
- In both orders, a judge that changes its mind is recorded as a tie; a probability is the mean of the two.
- A pair that a judge of several pairs gave no plain verdict on is asked about again by itself, and only that pair.
- A failure is 'unjudged', with its reason; it is never a vote.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from pasture.annotate.draws import ContentDraws, Draws, Side, other_side
from pasture.annotate.judge import PairJudge
from pasture.annotate.noise import noise_label, with_noise
from pasture.annotate.panel import Panel
from pasture.annotate.render import ShownPair
from pasture.annotate.verdicts import Reading
from pasture.core.ports import Engine, Progress, silent
from pasture.core.records import Comparison, Preference, content_id
from pasture.core.requests import Reply, Request

_RETRY_SAMPLE = 1000
"""Distance between the sample numbers of the tries to get a plain verdict; replicates number from 0 up to here."""
_MOST_RETRIES = 100
_WINDOW = 1024
"""Comparisons that a stream has in hand at once, and as many again while their last replies come."""
_BATCHING_WINDOW = 4096
"""The same where judges take several pairs a call: what shares a call, and so what is found in a store, hangs on it."""


@dataclass(frozen=True)
class Question:
    """One pair, shown in one order to one judge."""

    judge: int
    shown: ShownPair


@dataclass(frozen=True)
class Batch:
    """What one call asks a judge about."""

    judge: int
    places: tuple[Question | None, ...]
    """None where AlpacaEval's shuffle left padding."""

    @property
    def asked(self) -> list[tuple[int, Question]]:
        """The questions, each with its number in the call, from 1."""
        return [(number, each) for number, each in enumerate(self.places, start=1) if each is not None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question brought: a reading, or the reason why there is none."""

    reading: Reading | None
    error: str | None
    raw_reply: str | None
    """None where the service gave no answer."""
    answered: bool
    """Whether asking again could help: the service answered, or a filter did; all else is the engine's matter."""
    from_store: bool
    seconds: float
    cost_usd: float | None
    """This question's part of all calls that it took."""
    alone: bool
    """Whether the last of them asked about nothing else."""


@dataclass(frozen=True)
class _Plan:
    comparison: Comparison
    settled: Preference | None
    """The preference, where nobody needs to be asked."""
    asked: tuple[tuple[Question, Side], ...]
    """The questions, each with the side that it shows first."""


@dataclass(frozen=True)
class _Window:
    """Comparisons that are planned together."""

    plans: Sequence[_Plan]
    questions: Sequence[Question]
    batches: Sequence[Batch]
    answers: dict[Question, Answer] = field(default_factory=dict)


class LLMPool:
    """An `Annotator`: the judges of a panel, asked through an engine."""

    def __init__(
        self,
        panel: Panel,
        engine: Engine,
        *,
        draws: Draws | None = None,
        sample: int = 0,
        retry_unjudged: bool = False,
        progress: Progress = silent,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            panel: who is asked, in which order, with what noise.
            engine: who answers.
            draws: where annotators, orders and noise come from; None draws by content with seed 0.
            sample: number of the replicate, for a judge that is to be asked anew about what it has answered.
            retry_unjudged: whether answers in the store that hold no verdict are asked for once more.
            progress: told of every answered question.
        """
        self.panel = panel
        self.engine = engine
        self.draws: Draws = draws or ContentDraws()
        self.sample = sample
        self.retry_unjudged = retry_unjudged
        self.progress = progress
        self._reported = 0.0
        self._weights = {judge.name: weight for judge, weight in zip(panel.judges, panel.weights, strict=True)}
        self._numbers = {judge.name: number for number, judge in enumerate(panel.judges)}

    @property
    def identity(self) -> Mapping[str, object]:
        """The panel, the draws, the replicate and who answers, as plain JSON."""
        return {
            **self.panel.identity,
            **self.draws.identity,
            "sample": self.sample,
            # What an engine learns of its servers on the way changes no verdict, and would change the identity.
            "engine": {name: value for name, value in self.engine.identity.items() if name != "learned"},
        }

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """One preference for each comparison, in order."""
        return list(self._in_windows(iter([comparisons])))

    def stream(self, comparisons: Iterable[Comparison]) -> Iterator[Preference]:
        """The same, some thousand comparisons at a time, so that memory does not grow with their number.

        A pair that comes again thousands of rows later is looked up again, and bears its price again.
        """
        several = any(judge.batch_size > 1 for judge in self.panel.judges)
        rest, size = iter(comparisons), _BATCHING_WINDOW if several else _WINDOW
        return self._in_windows(iter(lambda: list(islice(rest, size)), []))

    def requests(self, comparisons: Sequence[Comparison]) -> Iterator[Request]:
        """The calls that `annotate` would make if every reply were plain: what a dry run counts."""
        plans = [self._plan(comparison) for comparison in comparisons]
        return (self._request(batch, self.sample) for batch in self._batches(plans))

    def _plan(self, comparison: Comparison) -> _Plan:
        name = self.draws.annotator_for(comparison, self._weights)
        settled = {"comparison_id": comparison.id, "annotator": name, "cost_usd": 0.0}
        if comparison.first.text == comparison.second.text:
            tie = Preference.model_validate({**settled, "preferred": "tie", "evidence": {"identical": True}})
            return _Plan(comparison, tie, ())
        swapped = self.panel.order == "random" and self.draws.shows_second_first(comparison)
        side: Side = "second" if swapped else "first"
        label = noise_label(self.panel.noise, comparison, name, side, self.draws)
        if label is not None:
            settled |= {"preferred": label, "shown_first": side, "flipped_by_noise": True}
            return _Plan(comparison, Preference.model_validate(settled), ())
        sides = (side, other_side(side)) if self.panel.order == "both" else (side,)
        number = self._numbers[name]
        return _Plan(comparison, None, tuple((Question(number, _shown(comparison, each)), each) for each in sides))

    def _in_windows(self, windows: Iterator[Sequence[Comparison]]) -> Iterator[Preference]:
        """Preferences by window; the calls of the next are in flight while the last of the one before come home."""
        ahead: deque[_Window] = deque()
        replies: Iterator[Reply] = iter(())
        try:
            while True:
                # The engine reads requests, and so windows into `ahead`, when it is asked for a reply, not before.
                first_reply = list(islice(replies, 1))
                if not ahead:  # nothing is in flight: begin, or go on behind a window about which nobody was asked
                    replies = self.engine.run(self._requests_of(windows, ahead))
                    first_reply = list(islice(replies, 1))
                if not ahead:
                    return  # every window has been read and given out
                yield from self._judged(ahead.popleft(), chain(first_reply, replies))
        finally:
            if isinstance(replies, Generator):
                replies.close()  # awaits what is in flight, also where the second question to a judge failed

    def _judged(self, window: _Window, replies: Iterator[Reply]) -> Iterator[Preference]:
        """The preferences of a window, whose replies come first among `replies`; later ones stay there."""
        self._read(window, window.batches, replies)
        self._ask_again(window)
        billed: set[Question] = set()
        yield from (self._preference(plan, window.answers, billed) for plan in window.plans)

    def _requests_of(self, windows: Iterator[Sequence[Comparison]], ahead: "deque[_Window]") -> Iterator[Request]:
        """The calls of windows that are read, and put into `ahead`, as places fall free."""
        for comparisons in windows:
            plans = [self._plan(comparison) for comparison in comparisons]
            window = _Window(plans, _questions(plans), self._batches(plans))
            ahead.append(window)
            if not window.batches:
                return  # nobody is asked: it is given out before more is read
            for batch in window.batches:
                yield self._request(batch, self.sample)

    def _ask_again(self, window: _Window) -> None:
        """Singly where a call about several pairs gave no verdict; anew where what is stored has none, if so wished."""
        questions, answers = window.questions, window.answers
        crowded = [each for each in questions if _has_no_verdict(answers[each]) and not answers[each].alone]
        self._ask_singly(window, crowded, 0)
        for attempt in range(1, _MOST_RETRIES if self.retry_unjudged else 1):
            stale = [each for each in questions if _has_no_verdict(answers[each]) and answers[each].from_store]
            if not stale:
                break
            self._ask_singly(window, stale, attempt * _RETRY_SAMPLE)

    def _ask_singly(self, window: _Window, questions: Sequence[Question], sample: int) -> None:
        batches = _singly(questions)
        self._read(window, batches, self.engine.run(self._request(each, self.sample + sample) for each in batches))

    def _read(self, window: _Window, batches: Sequence[Batch], replies: Iterator[Reply]) -> None:
        """Take down what the replies say; no reply is taken that answers no batch."""
        answers = window.answers
        for batch, reply in zip(batches, replies, strict=False):
            size, asked = len(batch.places), batch.asked
            readings = {} if reply.failed else self.panel.judges[batch.judge].read(reply, size)
            for number, question in asked:
                found = readings.get(number, reply.error or "the reply does not speak of it")
                earlier = answers.get(question)
                answers[question] = Answer(
                    found if isinstance(found, Reading) else None,
                    None if isinstance(found, Reading) else found,
                    raw_reply=None if reply.failed else reply.text,
                    answered=not reply.failed or reply.finish_reason == "filtered",
                    from_store=reply.from_store,
                    seconds=reply.seconds,
                    cost_usd=_sum(0.0 if earlier is None else earlier.cost_usd, _share(reply.cost_usd, len(asked))),
                    alone=size == 1,
                )
            self._report(answers, len(window.questions))

    def _report(self, answers: Mapping[Question, Answer], total: int) -> None:
        now = time.monotonic()
        if now - self._reported >= 0.2 or len(answers) == total:
            self._reported = now
            self.progress(len(answers), total)

    def _batches(self, plans: Sequence[_Plan]) -> list[Batch]:
        """Questions to the same judge, as many to a call as it takes.

        What shares a call is settled by content, so that rows in another order cost no new calls, or as AlpacaEval
        shuffles it; pairs with and without an input never share one, because some prompts differ.
        """
        size = self.draws.chunk_size
        if size is None:
            return self._chunk(_questions(plans))
        batches: list[Batch] = []
        seen: set[Question] = set()
        for start in range(0, len(plans), size):
            questions = [each for each in _questions(plans[start : start + size]) if each not in seen]
            seen.update(questions)
            batches += self._chunk(questions)
        return batches

    def _chunk(self, questions: Sequence[Question]) -> list[Batch]:
        batches: list[Batch] = []
        for number, judge in enumerate(self.panel.judges):
            mine = [question for question in questions if question.judge == number]
            if judge.batch_size == 1:
                batches += _singly(mine)
                continue
            for has_input in (False, True):
                alike = [question for question in mine if bool(question.shown.input) == has_input]
                places = self._places(alike, judge)
                starts = range(0, len(places), judge.batch_size)
                batches += [Batch(number, tuple(places[start : start + judge.batch_size])) for start in starts]
        return batches

    def _places(self, questions: Sequence[Question], judge: PairJudge) -> list[Question | None]:
        """The questions in the order in which they fill the judge's calls."""
        if self.draws.chunk_size is None or judge.padding is None:
            alike: list[Question] = sorted(questions, key=lambda question: content_id(*question.shown.texts))
            return [*alike]
        drawn = self.draws.places(len(questions), judge.batch_size)
        return [questions[place] if place < len(questions) else None for place in drawn]

    def _request(self, batch: Batch, sample: int) -> Request:
        judge = self.panel.judges[batch.judge]
        shown = [judge.padding if question is None else question.shown for question in batch.places]
        return judge.request([pair for pair in shown if pair is not None], sample)

    def _preference(self, plan: _Plan, answers: Mapping[Question, Answer], billed: set[Question]) -> Preference:
        if plan.settled is not None:
            return plan.settled
        parts = []
        for question, side in plan.asked:
            answer = answers[question]
            # Rows that share a question share its answer, not its price.
            if question in billed:
                answer = replace(answer, cost_usd=0.0)
            billed.add(question)
            parts.append(self._of_one_order(plan.comparison, question, side, answer))
        judged = parts[0] if len(parts) == 1 else of_both_orders(parts[0], parts[1])
        return with_noise(self.panel.noise, plan.comparison, judged, self.draws)

    def _of_one_order(self, comparison: Comparison, question: Question, side: Side, answer: Answer) -> Preference:
        judge = self.panel.judges[question.judge]
        reading = answer.reading
        known = {
            "comparison_id": comparison.id,
            "annotator": judge.name,
            "shown_first": side,
            "cost_usd": answer.cost_usd,
            "seconds": answer.seconds,
            "raw_reply": answer.raw_reply,
        }
        if reading is None:
            return Preference.model_validate({**known, "preferred": "unjudged", "error": answer.error})
        return Preference.model_validate(
            {
                **known,
                "preferred": "tie" if reading.better == "tie" else side if reading.better == "a" else other_side(side),
                "probability_first": _of_first(reading.probability_a, side),
                "evidence": dict(reading.evidence) or None,
            }
        )


def of_both_orders(one: Preference, other: Preference) -> Preference:
    """What a judge said of a pair shown in both orders: its verdict if it stood by it, else a tie.

    If one of the two is unjudged, so is the pair. `evidence["orders"]` holds both.
    """
    orders = [
        {
            "shown_first": each.shown_first,
            "preferred": each.preferred,
            "probability_first": each.probability_first,
            "raw_reply": each.raw_reply,
            **(each.evidence or {}),
        }
        for each in (one, other)
    ]
    failed = next((each for each in (one, other) if each.preferred == "unjudged"), None)
    probabilities = [each.probability_first for each in (one, other) if each.probability_first is not None]
    return one.model_copy(
        update={
            "preferred": "unjudged" if failed else one.preferred if one.preferred == other.preferred else "tie",
            "probability_first": sum(probabilities) / 2 if len(probabilities) == 2 else None,
            "cost_usd": _sum(one.cost_usd, other.cost_usd),
            "seconds": _sum(one.seconds, other.seconds),
            "evidence": {"orders": orders, "agree": None if failed else one.preferred == other.preferred},
            "error": failed and f"shown with the {failed.shown_first} first: {failed.error}",
        }
    )


def _questions(plans: Iterable[_Plan]) -> list[Question]:
    """Every question of `plans` once, in order."""
    return list(dict.fromkeys(question for plan in plans for question, _ in plan.asked))


def _singly(questions: Iterable[Question]) -> list[Batch]:
    """A call for each question."""
    return [Batch(question.judge, (question,)) for question in questions]


def _shown(comparison: Comparison, first: Side) -> ShownPair:
    one, two = comparison.first.text, comparison.second.text
    a, b = (one, two) if first == "first" else (two, one)
    return ShownPair(comparison.instruction.instruction, comparison.instruction.input, a, b)


def _has_no_verdict(answer: Answer) -> bool:
    """Whether there was an answer, but not a verdict."""
    return answer.reading is None and answer.answered


def _of_first(probability_a: float | None, shown_first: Side) -> float | None:
    return probability_a if probability_a is None or shown_first == "first" else 1 - probability_a


def _share(cost_usd: float | None, count: int) -> float | None:
    return None if cost_usd is None else cost_usd / count


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
