"""A key-value cache of fixed size whose rows can be given up and filled again in place.

`transformers`' DynamicCache copies itself at every token, and a static one computes over positions that are still
empty; both keep finished rows. Here a token is written into its column, attention sees a view of the columns in use,
and the last rows move into the slots of finished ones.
"""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass
class Slots:
    """Which of a cache's slots are in use; its layers look here, and not at the cache, so that it goes when it is left.

    Each prompt ends in the last column that is in use at the beginning.
    """

    rows: int
    columns: int
    live: int
    """Rows in use: the first ones."""
    used: int
    """Columns filled."""
    prefill: tuple[Tensor, Tensor] | None = None
    """While prompts are read: the rows to fill, and for each the row of the batch that fills it."""


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer: rows x heads x columns x head width."""

    is_sliding = False
    is_croppable = False

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the layer when its shapes are known."""
        rows, columns = self._slots.rows, self._slots.columns
        self.keys = key_states.new_empty(rows, key_states.shape[1], columns, key_states.shape[3])
        self.values = value_states.new_empty(rows, value_states.shape[1], columns, value_states.shape[3])
        for states in (self.keys, self.values):
            # Columns before a short prompt stay unwritten; masked, they must still be numbers.
            states[:, :, : self._slots.used] = 0.0
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store the new states; what the queries may look at comes back."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self._slots
        if slots.prefill is not None:
            rows_B, source_B = slots.prefill
            columns = slice(slots.used - key_states.shape[2], slots.used)
            self.keys[rows_B, :, columns] = key_states[source_B]
            self.values[rows_B, :, columns] = value_states[source_B]
            return key_states, value_states
        self.keys[: slots.live, :, slots.used] = key_states[:, :, 0]
        self.values[: slots.live, :, slots.used] = value_states[:, :, 0]
        return self.keys[: slots.live, :, : slots.used + 1], self.values[: slots.live, :, : slots.used + 1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the queries look at, and where those begin."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use before the current tokens."""
        return 0 if self._slots.prefill is not None else self._slots.used

    def get_max_length(self) -> int:
        """Columns there are."""
        return self._slots.columns


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of every layer, in `slots`."""

    def __init__(self, slots: Slots, *, layers: int) -> None:
        self._slots = slots
        super().__init__(layers=[SlotLayer(slots) for _ in range(layers)])

    def move_rows(self, source_K: Int[Tensor, " K"], target_K: Int[Tensor, " K"]) -> None:
        """Copy rows over others."""
        for layer in self.layers:
            layer.keys[target_K, :, : self._slots.used] = layer.keys[source_K, :, : self._slots.used]
            layer.values[target_K, :, : self._slots.used] = layer.values[source_K, :, : self._slots.used]
