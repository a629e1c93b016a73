"""Steps of room 4: one for each method that a recipe can name."""

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Completion, Instruction, Preference, Score
from pasture.core.templates import TEMPLATES, PromptTemplate
from pasture.learn import best_of_n as best_of_n_method
from pasture.learn import ppo as ppo_method
from pasture.learn import reward_model as reward_model_method
from pasture.learn import sft as sft_method
from pasture.learn.rollouts import Environment
from pasture.models.load import save_model
from pasture.models.tiny import new_meadow_model, word_tokenizer
from pasture.recipe import start_folder
from pasture.steps import Outcome, Task
from pasture.world.meadow import vocabulary
from pasture.world.words import END, PAD, UNKNOWN

SPECIAL_WORDS = (PAD, END, UNKNOWN)


def new_model(task: Task) -> Outcome:
    """An untrained model of the meadow's make."""
    tokenizer = word_tokenizer([word for word in vocabulary() if word not in SPECIAL_WORDS])
    save_model(new_meadow_model(len(tokenizer), task.settings["seed"]), tokenizer, task.folder / "model")
    return Outcome()


def sft(task: Task) -> Outcome:
    """Imitate the demonstrations."""
    settings, data = task.settings, task.inputs["data"]
    split = settings["demonstrations"]
    instructions = read_records(data / f"{split}.jsonl", Instruction)
    demonstrations = read_records(data / f"{split}-demonstrations.jsonl", Completion)
    start = task.inputs["model"] / "model" if "model" in task.inputs else start_folder(settings["start"])
    sft_method.train(
        sft_method.Config(**settings["config"]),
        start=start,
        demonstrations=list(zip(instructions, demonstrations, strict=True)),
        template=_template(task),
        folder=task.folder,
        seed=settings["seed"],
        progress=task.progress,
    )
    return Outcome(details={"demonstrations": len(demonstrations)})


def reward_model(task: Task) -> Outcome:
    """Learn to score from the preferences, centred on what the SFT model says."""
    settings = task.settings
    comparisons = read_records(task.inputs["pairs"] / "comparisons.jsonl", Comparison)
    preferences = read_records(task.inputs["labels"] / "preferences.jsonl", Preference)
    reward_model_method.train(
        reward_model_method.Config(**settings["config"]),
        start=task.inputs["model"] / "model",
        feedback=list(zip(comparisons, preferences, strict=True)),
        template=_template(task),
        folder=task.folder,
        seed=settings["seed"],
        progress=task.progress,
    )
    return Outcome(details={"preferences": len(preferences)})


def best_of_n(task: Task) -> Outcome:
    """Of each instruction's candidates, the one that the reward model likes best."""
    instructions = read_records(task.inputs["data"] / "evaluation.jsonl", Instruction)
    candidates = read_records(task.inputs["candidates"] / "completions.jsonl", Completion)
    scorer = reward_model_method.ModelScorer.load(task.inputs["scorer"] / "model", _template(task))
    by_id = {instruction.id: instruction for instruction in instructions}
    scores = scorer([by_id[one.instruction_id] for one in candidates], candidates)
    config = best_of_n_method.Config(**task.settings["config"])
    chosen = best_of_n_method.select(candidates, scores, n=config.n)
    write_records(task.folder / "scores.jsonl", _records(candidates, scores))
    write_records(
        task.folder / "completions.jsonl",
        [one.model_copy(update={"system": task.settings["system"], "seed": 0}) for one in chosen],
    )
    return Outcome(details={"n": config.n, "analytic_kl": best_of_n_method.analytic_kl(config.n)})


def _records(completions: list[Completion], scores: list[float]) -> list[Score]:
    return [
        Score(instruction_id=one.instruction_id, system=one.system, seed=one.seed, scorer="reward_model", value=value)
        for one, value in zip(completions, scores, strict=True)
    ]


def ppo(task: Task) -> Outcome:
    """Learn against the reward model, on instructions that nothing else was trained on."""
    settings = task.settings
    ppo_method.train(
        ppo_method.Config(**settings["config"]),
        start=task.inputs["model"] / "model",
        value_start=task.inputs["scorer"] / "model",
        environment=Environment(
            instructions=read_records(task.inputs["data"] / "unlabeled.jsonl", Instruction),
            template=_template(task),
            scorer=reward_model_method.ModelScorer.load(task.inputs["scorer"] / "model", _template(task)),
        ),
        folder=task.folder,
        seed=settings["seed"],
        progress=task.progress,
    )
    steps = sorted(path.name for path in (task.folder / "steps").iterdir())
    if not steps:
        raise DataError("no PPO step was saved: learn.ppo.save_every is larger than learn.ppo.steps.")
    return Outcome(details={"saved_steps": len(steps)})


def _template(task: Task) -> PromptTemplate:
    return TEMPLATES[task.settings["template"]]
