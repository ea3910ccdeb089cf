"""llama.cpp's server within xllamacpp, opened by a process of its own.

`python -m bench.cpu.llama_server FILE PORT STREAMS TOKENS [FOLDER]`; FOLDER is where the package is imported from.
"""

import signal
import sys


def main(file: str, port: str, streams: str, tokens: str) -> None:
    import xllamacpp  # type: ignore[import-untyped,unused-ignore]

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_parallel = int(streams)
    params.n_ctx = int(tokens)
    params.cache_ram_mib = 0
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    server = xllamacpp.Server(params)
    print(server.listening_address, xllamacpp.get_system_info(), flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    sys.path[:0] = sys.argv[5:]
    main(*sys.argv[1:5])
