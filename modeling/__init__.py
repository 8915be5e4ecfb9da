"""Models, one file a model, and what they share."""
