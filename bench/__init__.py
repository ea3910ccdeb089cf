"""Benches: each holds one of Hearth's figures against its bar, beside a peer measured in the same run."""
