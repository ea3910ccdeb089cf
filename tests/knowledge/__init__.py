"""Tests of the knowledge room: real LanceDB tables in temporary folders, and a light deterministic embedder."""
