"""Tests of the vector stores room."""
