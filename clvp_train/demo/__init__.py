"""A web page that samples, ranks and plays candidates for a sentence."""
