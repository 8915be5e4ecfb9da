"""What a training script needs beyond transformers.Trainer."""
