"""Scorers, intervals and reports."""
