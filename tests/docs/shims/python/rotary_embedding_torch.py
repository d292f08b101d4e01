"""tortoise/models/clvp.py imports its older transformer too, which asks for this; nothing here runs it."""

RotaryEmbedding = broadcat = None
