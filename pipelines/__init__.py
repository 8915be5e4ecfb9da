"""transformers pipelines: understanding, instructions and units, from audio.

    pipeline("speech-understanding", model="org/name")("clip.wav")

`import speechzoo` registers them; `pipelines_of` tells which a checkpoint has.
"""

from .pipeline_tasks import pipelines_of

__all__ = ["pipelines_of"]
