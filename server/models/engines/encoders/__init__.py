"""Encoders over the OpenVINO runtime: embeddings and reranking."""
