"""What `import pasture` gives, for editors and type checkers; `__init__.py` loads it when it is asked for."""

from pasture.annotate.entry import annotate_head2head as annotate_head2head
from pasture.annotate.entry import annotate_pairs as annotate_pairs
from pasture.annotate.entry import annotate_samples as annotate_samples
from pasture.annotate.human import People as People
from pasture.annotate.human import PeopleConfig as PeopleConfig
from pasture.annotate.panel import load_panel as load_panel
from pasture.annotate.raters import MeadowPeople as MeadowPeople
from pasture.annotate.raters import MeadowPool as MeadowPool
from pasture.annotate.stored import Access as Access
from pasture.annotate.stored import StoredPool as StoredPool
from pasture.core.errors import PastureError as PastureError
from pasture.core.files import read_records as read_records
from pasture.core.files import write_records as write_records
from pasture.core.ports import Annotator as Annotator
from pasture.core.ports import Engine as Engine
from pasture.core.ports import Scorer as Scorer
from pasture.core.records import Comparison as Comparison
from pasture.core.records import Completion as Completion
from pasture.core.records import Instruction as Instruction
from pasture.core.records import Preference as Preference
from pasture.core.records import Rating as Rating
from pasture.core.records import Score as Score
from pasture.core.records import WinRate as WinRate
from pasture.data.instructions import load_demonstrations as load_demonstrations
from pasture.data.instructions import load_prompts as load_prompts
from pasture.data.load import load_split as load_split
from pasture.data.preferences import FeedbackFile as FeedbackFile
from pasture.data.preferences import load_feedback as load_feedback
from pasture.evaluate.board import build_board as build_board
from pasture.evaluate.length_control import length_control as length_control
from pasture.evaluate.outcomes import Outcomes as Outcomes
from pasture.evaluate.outcomes import outcomes_of as outcomes_of
from pasture.evaluate.table import board_table as board_table
from pasture.evaluate.win_rate import paired_difference as paired_difference
from pasture.evaluate.win_rate import summarize_all as summarize_all
from pasture.generate.pairs import against_reference as against_reference
from pasture.generate.pairs import sample_pairs as sample_pairs
from pasture.report.content import Leaderboard as Leaderboard
from pasture.report.content import ReportContent as ReportContent
from pasture.report.page import write_report as write_report
from pasture.steps.board_page import leaderboard_of as leaderboard_of
from pasture.validate.rank_correlation import rank_correlation as rank_correlation

__version__: str

HOMES: dict[str, tuple[str, ...]]
