"""The process that moves weights."""

from server.policies.process import serve
from server.policies.tiering.weights import move

if __name__ == "__main__":
    serve(move)
