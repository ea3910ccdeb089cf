"""Where documents come from; each module lists what one kind of source holds."""
