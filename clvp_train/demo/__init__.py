"""A page in the browser: candidates drawn, ranked and played."""
