"""ExLlamaV2 and ExLlamaV3: models of 2 to 8 bits on an NVIDIA GPU. Neither is imported before its worker loads a model.

`engine` is one adapter over both; `v2` and `v3` hold what is theirs. `preflight` reads a folder without torch.
"""
