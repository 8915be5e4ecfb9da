"""Model and data set cards, and publishing."""
