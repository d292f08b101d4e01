"""How a batch is turned into gradients."""

from dataclasses import dataclass

from clvp_train.errors import UserError, check_number


@dataclass(frozen=True)
class TrainingConfig:
    """What a training step saves, and what it hides. None of it changes what is learned but the two shares."""

    chunk_size: int = 32  # rows that an encoder takes at once, sorted by length; 0: the whole batch, padding and all
    cached_gradients: bool = False  # memory of one chunk and the embeddings, for one more forward
    gradient_checkpointing: bool = False  # memory of one layer of a chunk, likewise
    compile: bool = False  # layer by layer
    text_mask_percentage: float = 0.0  # share of text tokens hidden in training, as Tortoise calls it; 0 to 1
    voice_mask_percentage: float = 0.0  # of speech codes, likewise

    def __post_init__(self) -> None:
        check_number("training.chunk_size", self.chunk_size, 0)
        for name in ("text_mask_percentage", "voice_mask_percentage"):
            share = getattr(self, name)
            check_number(f"training.{name}", share, 0, whole=False)
            if share >= 1:
                raise UserError(f"training.{name}={share}: it is a share, set it to less than 1")
        for name in ("cached_gradients", "gradient_checkpointing", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"training.{name}={getattr(self, name)}: set it to true or false")
        if self.cached_gradients and self.chunk_size == 0:
            raise UserError("training.cached_gradients=true needs chunks: set training.chunk_size to 1 or more")
