"""A key-value cache of fixed size whose rows can be given up and filled again in place.

`transformers`' DynamicCache copies itself at every token, and a static one computes over positions that are still
empty; both keep finished rows. Here a token is written into its column, attention sees a view of the columns in use,
and the last rows move into the slots of finished ones.
"""

from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer: rows x heads x columns x head width."""

    is_sliding = False
    is_croppable = False

    def __init__(self, cache: "SlotCache") -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the layer when its shapes are known."""
        rows, columns = self._cache.rows, self._cache.columns
        self.keys = key_states.new_empty(rows, key_states.shape[1], columns, key_states.shape[3])
        self.values = value_states.new_empty(rows, value_states.shape[1], columns, value_states.shape[3])
        for states in (self.keys, self.values):
            # Columns before a short prompt stay unwritten; masked, they must still be numbers.
            states[:, :, : self._cache.used] = 0.0
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store the new states; what the queries may look at comes back."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        cache = self._cache
        if cache.prefill is not None:
            rows_B, source_B = cache.prefill
            columns = slice(cache.used - key_states.shape[2], cache.used)
            self.keys[rows_B, :, columns] = key_states[source_B]
            self.values[rows_B, :, columns] = value_states[source_B]
            return key_states, value_states
        self.keys[: cache.live, :, cache.used] = key_states[:, :, 0]
        self.values[: cache.live, :, cache.used] = value_states[:, :, 0]
        return self.keys[: cache.live, :, : cache.used + 1], self.values[: cache.live, :, : cache.used + 1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the queries look at, and where those begin."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use before the current tokens."""
        return 0 if self._cache.prefill is not None else self._cache.used

    def get_max_length(self) -> int:
        """Columns there are."""
        return self._cache.columns


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Room for `rows` sequences of at most `columns` tokens; each prompt ends in column `prompt_columns` - 1."""

    def __init__(self, *, layers: int, rows: int, columns: int, prompt_columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.live = rows
        """Rows in use: the first ones."""
        self.used = prompt_columns
        """Columns filled."""
        self.prefill: tuple[Tensor, Tensor] | None = None
        """While prompts are read: the rows to fill, and for each the row of the batch that fills it."""
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    def move_rows(self, source_K: Int[Tensor, " K"], target_K: Int[Tensor, " K"]) -> None:
        """Copy rows over others."""
        for layer in self.layers:
            layer.keys[target_K, :, : self.used] = layer.keys[source_K, :, : self.used]
            layer.values[target_K, :, : self.used] = layer.values[source_K, :, : self.used]
