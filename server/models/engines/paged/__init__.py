"""Generation on the processor: a paged-attention engine over the OpenVINO runtime.

Weights (`gguf_file`, `folder`) become a graph (`graph`); `engine` schedules sequences over its pages (`pages`,
`schedule`). What chooses tokens and turns them into text is in `server.models.engines.sampling`.
"""

from server.models.engines.paged.engine import PagedEngine

__all__ = ["PagedEngine"]
