"""The frozen Tortoise: tokenizer, conditioning encoder, autoregressive model (AR) and DVAE. Importing this package registers
`CLVPProcessor` with AutoProcessor."""

from transformers import AutoProcessor

from clvp_train.models import CLVPConfig
from clvp_train.tortoise.frozen import FrozenTortoise
from clvp_train.tortoise.generation import Candidate
from clvp_train.tortoise.parts import TortoiseParts
from clvp_train.tortoise.processing_clvp import CLVPProcessor
from clvp_train.tortoise.sampling import Sampling

AutoProcessor.register(CLVPConfig, CLVPProcessor, exist_ok=True)

__all__ = ["CLVPProcessor", "Candidate", "FrozenTortoise", "Sampling", "TortoiseParts"]
