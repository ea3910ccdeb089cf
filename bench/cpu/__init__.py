"""The CPU engine beside its peers: `bench` measures it. A process of one side starts here without all the others."""


def bench(quick: bool, only: str | None, llama_server: str | None) -> int:
    """1 where a bar falls short, 2 where a part could not run. Raises CannotRun for a part there is not."""
    from bench.cpu.parts import run  # not for the processes of one side: they hold nothing but their engine

    return run(quick, only, llama_server)
