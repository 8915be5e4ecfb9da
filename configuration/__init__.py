"""Configurations, one file a model."""
