"""Models: the gateway's handle, and the engines that live in worker processes."""
