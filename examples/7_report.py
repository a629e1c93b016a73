"""Lesson 7. The report: numbers, their errors and the answers behind them on one page that needs nothing else.

Run it with `python examples/7_report.py`, then open runs/examples/7_report/index.html.
"""

from dataclasses import replace
from pathlib import Path

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.data.load import load_split
from pasture.evaluate.outcomes import outcomes_of
from pasture.generate.pairs import against_reference
from pasture.report.content import Answer, ReportContent, Sample
from pasture.report.page import write_report
from pasture.report.summary import MEADOW, sentences
from pasture.steps.board_page import leaderboard_of
from pasture.world.writing import DEMONSTRATION, PRETRAINING, write

FOLDER = Path("runs/examples/7_report")
STYLES = {"found": PRETRAINING, "careful": replace(DEMONSTRATION, right=0.95), "twin": DEMONSTRATION}

instructions, references = load_split("meadow", "evaluation", 400, seed=0)
answers = {name: [write(one, style, name, seed=7) for one in instructions] for name, style in STYLES.items()}
comparisons = [pair for given in answers.values() for pair in against_reference(instructions, references, given)]

# A board for each judge, the one that counts most first. Every rate stands beside what was asked, judged and failed,
# and every two systems are compared on the instructions that both answered.
judges = {
    "people (hidden)": MeadowPeople(seed=0, votes=3),
    "simulated annotators": MeadowPool(seed=0, label_flip_probability=0.0),
}
boards = []
for title, judge in judges.items():
    outcomes = outcomes_of(judge.annotate(comparisons), comparisons, judge=title, reference="demonstrations")
    boards.append(leaderboard_of(outcomes, title=title, baseline="found"))

# Nobody should believe a number without having read a few answers. The page escapes them: what models write is hostile.
samples = [
    Sample(
        instruction=instruction,
        answers=(
            Answer(completion=references[number]),
            *(Answer(completion=given[number]) for given in answers.values()),
        ),
    )
    for number, instruction in enumerate(instructions[:5])
]

content = ReportContent(
    title="Three writers of the meadow", testbed=MEADOW, baseline="found", leaderboards=boards, samples=samples
)
write_report(content, FOLDER / "index.html")

# The first thing on the page is what it comes to, in sentences. They are made from the numbers, so they cannot flatter.
for sentence in sentences(content.leaderboards, content.baseline):
    print(f"- {sentence}")
print(f"report: {FOLDER / 'index.html'}, {(FOLDER / 'index.html').stat().st_size // 1024} KiB, no script, no request")
