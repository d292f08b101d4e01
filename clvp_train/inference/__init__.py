"""A trained model at work: scoring and picking candidates."""
