"""Using a trained model: scoring and picking candidates."""
