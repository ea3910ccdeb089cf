"""Generation on the processor: a paged-attention engine over the OpenVINO runtime.

Weights (`gguf_file`, `folder`) become a graph (`graph`); `engine` schedules sequences over its pages (`pages`,
`schedule`), chooses tokens (`sampler`, `constraint`) and turns them into text (`vocabulary`).
"""

from server.models.engines.paged.engine import PagedEngine

__all__ = ["PagedEngine"]
