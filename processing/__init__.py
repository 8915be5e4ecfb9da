"""What is saved beside a model and runs before it."""
