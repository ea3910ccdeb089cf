"""Models made smaller: GGUF and GPTQ written here, EXL2 and EXL3 by the converters of their engines, and the loss.

Imported by the command that quantises, and by no worker.
"""
