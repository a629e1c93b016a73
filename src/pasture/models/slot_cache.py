"""A key-value cache whose rows are given up and filled again in place.

`transformers`' DynamicCache copies itself at every token, and a static one computes over positions that are still
empty; both keep finished rows. Here all rows write into one column, the next; each row's own tokens are the last
columns before it, as many as it has. Attention sees a view of the columns that some row still needs. Live rows are the
first ones; others move into the slots of those that finish, and newcomers come behind them.
"""

from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from pasture.machine.heap import give_back_holes, mapped_empty


@dataclass
class Slots:
    """Which slots are in use; a cache's layers look here, and not at the cache, so that it goes when it is left."""

    rows: int = 0
    columns: int = 0
    live: int = 0
    """Rows in use: the first ones."""
    first: int = 0
    """First column that a live row needs."""
    used: int = 0
    """Columns filled: the next token's column."""
    spans: list[tuple[slice, int]] = field(default_factory=list)
    """Live rows in stretches, each with the first of the columns in view that its rows need."""
    prefill: tuple[Tensor, Tensor] | None = None
    """While prompts are read: the rows to fill, and for each the row of the batch that fills it."""

    @property
    def window(self) -> int:
        """Columns in view before the next token's."""
        return self.used - self.first


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
        self.keys, self.values = (
            mapped_empty(states, rows, states.shape[1], columns, states.shape[3])
            for states in (key_states, value_states)
        )
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
            start = slots.used - key_states.shape[2]
            for states, new in ((self.keys, key_states), (self.values, value_states)):
                # Masked, the columns before a prompt must still be numbers.
                states[rows_B, :, :start] = 0.0
                states[rows_B, :, start : slots.used] = new[source_B]
            return key_states, value_states
        self.keys[: slots.live, :, slots.used] = key_states[:, :, 0]
        self.values[: slots.live, :, slots.used] = value_states[:, :, 0]
        view = slice(slots.first, slots.used + 1)
        return self.keys[: slots.live, :, view], self.values[: slots.live, :, view]

    def move_rows(self, source_K: Int[Tensor, " K"], target_K: Int[Tensor, " K"]) -> None:
        """Copy rows over others."""
        view = slice(self._slots.first, self._slots.used)
        for states in (self.keys, self.values):
            states[target_K, :, view] = states[source_K, :, view]

    def lay_out(self, rows: int, columns: int, lead: int) -> None:
        """Take `rows` x `columns`, with what is in use behind `lead` columns."""
        if self.is_initialized:
            self.keys = self._laid_out(self.keys, rows, columns, lead)
            self.values = self._laid_out(self.values, rows, columns, lead)

    def _laid_out(self, states: Tensor, rows: int, columns: int, lead: int) -> Tensor:
        slots = self._slots
        result = mapped_empty(states, rows, states.shape[1], columns, states.shape[3])
        result[: slots.live, :, :lead] = 0.0
        result[: slots.live, :, lead : lead + slots.window] = states[: slots.live, :, slots.first : slots.used]
        return result

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the queries look at, and where those begin."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in view before the current tokens."""
        return 0 if self._slots.prefill is not None else self._slots.window

    def get_max_length(self) -> int:
        """Columns there are."""
        return self._slots.columns


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of every layer, in `slots`."""

    def __init__(self, slots: Slots, *, layers: int) -> None:
        self._slots = slots
        super().__init__(layers=[SlotLayer(slots) for _ in range(layers)])

    @property
    def width(self) -> int:
        """Numbers that a layer keeps of a token, once it has kept some."""
        layer = self.layers[0]
        return int(sum(states.shape[1] * states.shape[3] for states in (layer.keys, layer.values)))

    def move_rows(self, source_K: Int[Tensor, " K"], target_K: Int[Tensor, " K"]) -> None:
        """Copy rows over others."""
        for layer in self.layers:
            layer.move_rows(source_K, target_K)

    def lay_out(self, rows: int, columns: int, lead: int = 0) -> None:
        """Take `rows` x `columns`: what live rows need comes behind `lead` columns, all else is dropped."""
        slots = self._slots
        for layer in self.layers:
            layer.lay_out(rows, columns, lead)
        first = self.layers[0]
        if not first.is_initialized or first.keys.device.type == "cpu":
            give_back_holes()  # of prompts that were read, and of steps
        slots.rows, slots.columns = rows, columns
        slots.first, slots.used = lead, lead + slots.window
