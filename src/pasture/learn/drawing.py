"""Where the answers come from that a policy learns from: the policy itself, or a server that is handed its weights.

A server computes in numbers of its own, so that its answers are not quite the policy's: what a method makes of that is
its own affair (`sampler_ratio_cap`). That they are nearly the policy's, of this moment, is seen to here.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from pasture.core.errors import TrainingError
from pasture.engines.rollout_server import RolloutServer, Wanted
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.formulas.logprobs import head_logprobs
from pasture.machine.distributed import is_main, on_main
from pasture.machine.sharded import whole_state
from pasture.models.adapters import adapted_layers, save_adapters
from pasture.models.encode import Encoder
from pasture.models.load import stop_token_ids, write_pretrained
from pasture.models.response import ResponseModel
from pasture.models.sample import Sample, SamplerConfig, check_room, sample

WEIGHTS_FOLDER = "rollouts"
CHECKED_ANSWERS = 8
"""Of each batch that a server draws, this many are held against the policy."""
PROBE = "The quick brown fox, aged 12345, jumps: naïve café, 東京! def f(x): return x ** 2"


def check_corrected(rollouts: RolloutServerConfig | None, sampler_ratio_cap: float | None) -> None:
    """See that a method that takes the sampler for the policy allows for a server that is not quite the policy.

    Raises:
        ValueError: if it does not.
    """
    if rollouts is not None and sampler_ratio_cap is None:
        raise ValueError(
            "a server's answers are not quite the policy's: set sampler_ratio_cap, the most that an answer or a token "
            "counts for being likelier under the policy than under the server; 2 is usual"
        )


class OwnSampler:
    """Draws from the policy in this process."""

    def __init__(self, policy: PreTrainedModel) -> None:
        self.policy = policy

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        device: torch.device = self.policy.device
        return device

    def draw(
        self, encoder: Encoder, prompts: Sequence[Sequence[int]], seeds: Sequence[int], config: SamplerConfig
    ) -> list[Sample]:
        """One answer for each prompt and seed, in order."""
        return sample(self.policy, stop_token_ids(self.policy, encoder.tokenizer), prompts, seeds, config)


class ServedSampler(OwnSampler):
    """Draws from the policy behind a server, with the weights that the server was last handed."""

    def __init__(self, policy: PreTrainedModel, server: RolloutServer, most_difference: float) -> None:
        super().__init__(policy)
        self.server = server
        self.most_difference = most_difference
        self._response = ResponseModel(policy)

    def draw(
        self, encoder: Encoder, prompts: Sequence[Sequence[int]], seeds: Sequence[int], config: SamplerConfig
    ) -> list[Sample]:
        """One answer for each prompt and seed, in order.

        Raises:
            EngineError: if the server fails.
            TrainingError: if it draws from other weights than the policy's.
        """
        stop_ids = stop_token_ids(self.policy, encoder.tokenizer)
        wanted = Wanted(config.temperature, config.top_p, config.max_new_tokens, stop_ids)
        answers = [
            # Behind temperature and top-p its numbers may be of either distribution, and nothing here asks for them.
            Sample(one.token_ids, one.logprobs, one.logprobs, one.finish_reason)
            for one in self.server.draw(prompts, seeds, wanted)
        ]
        if answers and config.temperature == 1.0 and config.top_p == 1.0:
            self._check(prompts, answers)
        return answers

    def _check(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sample]) -> None:
        """See that the answers are drawn from the policy as it is now.

        Raises:
            TrainingError: if they are not.
        """
        count = min(CHECKED_ANSWERS, len(answers))
        places = [number * len(answers) // count for number in range(count)]
        differences = [
            abs(own - theirs)
            for place in places
            for own, theirs in zip(self._logprobs(prompts[place], answers[place]), answers[place].logprobs, strict=True)
        ]
        mean = sum(differences) / len(differences)
        if not mean <= self.most_difference:
            raise TrainingError(
                f"answers from {self.server.url} have log-probabilities that differ from the policy's by {mean:.2g} "
                f"nats a token on average, expected at most {self.most_difference:g} (rollouts.most_difference): the "
                "server draws from other weights. Either it serves another model than training begins with, or it has "
                "not taken the weights that it was handed, or somebody else hands it theirs. Start it anew for this "
                "training alone, and run again: training goes on."
            )

    @torch.no_grad()
    def _logprobs(self, prompt: Sequence[int], answer: Sample) -> list[float]:
        ids_BT = torch.tensor([[*prompt, *answer.token_ids]], device=self.device)
        at_BT = torch.zeros(1, ids_BT.shape[1] - 1, dtype=torch.bool, device=self.device)
        at_BT[:, len(prompt) - 1 :] = True
        hidden_NH = self._response.hidden(ids_BT[:, :-1], at_BT)
        model = self._response
        values: list[float] = head_logprobs(hidden_NH, model.head, ids_BT[:, 1:][at_BT], model.vocabulary_size).tolist()
        return values


class Drawing:
    """Who draws for one training; closes what it opened, and removes the weights that it handed over."""

    def __init__(
        self,
        config: RolloutServerConfig | None,
        policy: PreTrainedModel,
        encoder: Encoder,
        folder: Path,
        *,
        start: Path,
    ) -> None:
        """`folder` is the training's; nothing is asked of a server before `check` and `now`."""
        self.policy, self.encoder = policy, encoder
        self.weights = folder / WEIGHTS_FOLDER
        self.server: RolloutServer | None = None
        if config is not None:
            name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
            self.server = RolloutServer(config, adapter=f"pasture-{name}", start=str(start))
            self.most_difference = config.most_difference
        self._handed: Path | None = None
        self._served_rows = AutoConfig.from_pretrained(start).get_text_config().vocab_size if config else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.server is not None:
            if is_main():
                self.server.unload_adapter()
                shutil.rmtree(self.weights, ignore_errors=True)
            self.server.close()

    def check(self, longest_prompt: int, max_new_tokens: int) -> None:
        """See, before any step is taken, that prompts and answers fit, and that a server, where one draws, is there.

        Raises:
            ModelError: if the longest prompt and its answer do not fit the policy's context.
            EngineError: saying what of the server does not fit.
        """
        check_room(self.policy.config, longest_prompt, max_new_tokens)
        if self.server is not None:
            tokenizer = self.encoder.tokenizer
            probes = {PROBE: tokenizer(PROBE, add_special_tokens=False)["input_ids"]}
            self.server.check(probes, longest_prompt + max_new_tokens)

    def now(self) -> OwnSampler:
        """A sampler of the policy as it is at this moment.

        Raises:
            EngineError: if the server does not take the policy's weights.
        """
        if self.server is None:
            return OwnSampler(self.policy)
        self._hand_over(self.server)
        return ServedSampler(self.policy, self.server, self.most_difference)

    def _hand_over(self, server: RolloutServer) -> None:
        """Every process takes part, the main one writes and tells the server."""
        weights = whole_state(self.policy)
        on_main(lambda: self._write_and_load(server, weights))
        server.draws_from_adapter = bool(adapted_layers(self.policy))

    def _write_and_load(self, server: RolloutServer, weights: Mapping[str, Tensor]) -> None:
        self.weights.mkdir(parents=True, exist_ok=True)
        # Each time a name that was never used: the server may go by it where it remembers what it has read.
        place = Path(tempfile.mkdtemp(dir=self.weights))
        place.chmod(0o755)
        if adapted_layers(self.policy):
            save_adapters(self.policy, weights, place)
            server.load_adapter(place)
        else:
            save_weights(self.policy, weights, place, rows=self._served_rows)
            server.load_weights(place)
        if self._handed is not None:
            shutil.rmtree(self._handed, ignore_errors=True)
        self._handed = place


def save_weights(policy: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path, *, rows: int) -> None:
    """Write the policy's weights for a server of the model that it began as, whose vocabulary has `rows` tokens.

    Where a pad was added to the policy's own, its row stays here: nobody draws it.
    """
    matrices = {id(layer.weight) for layer in (policy.get_input_embeddings(), policy.get_output_embeddings())}
    long = {name for name, one in policy.named_parameters(remove_duplicate=False) if id(one) in matrices}
    cut = {name: tensor[:rows] if name in long else tensor for name, tensor in weights.items()}
    write_pretrained(policy, cut, folder)
