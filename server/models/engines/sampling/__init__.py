"""What engines share that choose tokens themselves: vocabulary, grammars and the choice; knows no runtime."""
