"""The wire and nothing else: one module per endpoint family, thin handlers over the runtime."""
