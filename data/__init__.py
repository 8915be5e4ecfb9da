"""Corpora, mixtures, collators and the feature store."""
