"""speechzoo: a model zoo of joint speech-text language models, native to the Hugging Face Hub."""

__version__ = "0.1.0"
