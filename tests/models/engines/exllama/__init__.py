"""Tests of the engines of a GPU, on the processor."""
