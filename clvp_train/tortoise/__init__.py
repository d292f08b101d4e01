"""The frozen Tortoise: tokenizer, conditioning encoder, autoregressive model (AR) and DVAE."""

from clvp_train.tortoise.frozen import FrozenTortoise
from clvp_train.tortoise.generation import Candidate
from clvp_train.tortoise.parts import TortoiseParts
from clvp_train.tortoise.sampling import Sampling

__all__ = ["Candidate", "FrozenTortoise", "Sampling", "TortoiseParts"]
