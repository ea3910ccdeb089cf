"""What a machine with an NVIDIA GPU is asked once: whether the CUDA engines are right, and how near its limits."""
