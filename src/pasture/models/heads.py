"""A language model that gives a number for each token: the shape of reward and value models."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from pasture.core.errors import ModelError
from pasture.core.files import atomic_file
from pasture.core.seeds import stream
from pasture.machine.distributed import is_main, wait
from pasture.machine.sharded import kept_whole
from pasture.models.batches import positions
from pasture.models.load import HEAD_FILE, inner_folder, load_weights, local_folder, save_pretrained
from pasture.models.trunk import Trunk


class ScalarModel(nn.Module):
    """The backbone of a causal language model under one linear output.

    The value at a token is head(hidden state) - offset. The head computes in float32 whatever the backbone's type.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        hidden_size = backbone.config.get_text_config().hidden_size
        self.head = nn.Linear(hidden_size, 1, device=backbone.device, dtype=torch.float32)
        self.register_buffer("offset", torch.zeros((), device=backbone.device, dtype=torch.float32))
        self._trunk: Trunk | None = None

    offset: Tensor
    """Subtracted from every value; set it to a reward model's mean score to centre the model."""

    @classmethod
    def from_causal_lm(cls, model: PreTrainedModel, *, seed: int = 0) -> "ScalarModel":
        """A scalar model on the backbone of `model` itself (no copy), with a fresh head and offset 0.

        The head's weights are normal with variance 1 / (hidden size + 1), its bias is 0.

        Source: Stiennon et al. 2020, Appendix B.1, https://arxiv.org/abs/2009.01325 (initial reward head)
        """
        scalar = cls(model.base_model)
        width = scalar.head.in_features
        weights = stream(seed, "scalar-head").normal(0.0, (width + 1) ** -0.5, size=(1, width))
        with torch.no_grad():
            scalar.head.weight.copy_(torch.from_numpy(weights))
            scalar.head.bias.zero_()
        return scalar

    @classmethod
    def on_trunk_of(cls, model: PreTrainedModel) -> "ScalarModel":
        """A scalar model on the backbone of `model` itself (no copy), whose every value is 0 before it learns."""
        scalar = cls(model.base_model)
        nn.init.zeros_(scalar.head.weight)
        nn.init.zeros_(scalar.head.bias)
        return scalar

    @property
    def trunk(self) -> Trunk:
        """The backbone, to be asked for the hidden states of some tokens; made ready when it is first asked."""
        if self._trunk is None:
            self._trunk = Trunk(self.backbone)
        return self._trunk

    def forward(self, ids_BT: Int[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The value at each token, the same whichever side the pads are on; values at pads mean nothing."""
        hidden_BTD = self.backbone(
            input_ids=ids_BT,
            attention_mask=mask_BT.long(),
            position_ids=positions(mask_BT),
            use_cache=False,
        ).last_hidden_state
        value_BT: Tensor = self.head(hidden_BTD.float()).squeeze(-1) - self.offset
        return value_BT

    def save(self, folder: Path) -> None:
        """Write the backbone as a plain `from_pretrained` folder, and head and offset beside it.

        Raises:
            RunFolderError: if the disk is full or the folder cannot be written.
        """
        save_pretrained(self.backbone, folder)
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "offset": self.offset}
        kept = {name: kept_whole(tensor.detach()).cpu() for name, tensor in tensors.items()}
        if is_main():
            with atomic_file(folder / HEAD_FILE) as draft:
                save_file(kept, draft)
        wait()

    @classmethod
    def load(
        cls, folder: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> "ScalarModel":
        """The model that `save` wrote, in evaluation mode.

        Raises:
            ModelError: if `folder` is not one.
        """
        path = local_folder(folder)
        if not (path / HEAD_FILE).is_file():
            raise ModelError(
                f"{path} holds no {HEAD_FILE}, so it is no reward or value model. "
                "Name the folder of a trained reward model, or begin one from a language model."
                f"{inner_folder(path, HEAD_FILE)}"
            )
        model = cls(load_weights(AutoModel, path, dtype))
        try:
            tensors = load_file(path / HEAD_FILE)
            model.head.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
            model.offset.copy_(tensors["offset"])
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"{path / HEAD_FILE} does not fit its backbone ({error}). Train the model again."
            ) from error
        return model.to(device).eval()
