"""How well a collection finds: each leg, LanceDB's own hybrid search and Hearth's, on the same questions."""

from bench.retrieval.bench import bench

__all__ = ["bench"]
