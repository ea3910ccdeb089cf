"""Generation by llama.cpp: any GGUF file, through the package xllamacpp."""
