"""What leaves the machine, encrypted for one identity of age (https://age-encryption.org/v1), or as it is without."""

from typing import Protocol

from server.errors import ServiceError


class Seal(Protocol):
    """Closes and opens whole files. `open` raises ServiceError for what was not closed with the same key."""

    suffix: str

    def close(self, data: bytes) -> bytes: ...

    def open(self, data: bytes, name: str) -> bytes: ...


class Plain:
    """Leaves everything as it is."""

    suffix = ""

    def close(self, data: bytes) -> bytes:
        return data

    def open(self, data: bytes, name: str) -> bytes:
        return data


class Age:
    """Encrypts for `identity`, AGE-SECRET-KEY-1..., and with it decrypts."""

    suffix = ".age"

    def __init__(self, identity: str) -> None:
        from pyrage import IdentityError, x25519

        try:
            self._identity = x25519.Identity.from_str(identity)
        except IdentityError as fault:
            raise ServiceError(f"policies.backup.key is no age identity: {fault}") from None

    def close(self, data: bytes) -> bytes:
        import pyrage

        return bytes(pyrage.encrypt(data, [self._identity.to_public()]))

    def open(self, data: bytes, name: str) -> bytes:
        import pyrage

        try:
            return bytes(pyrage.decrypt(data, [self._identity]))
        except pyrage.DecryptError as fault:
            raise ServiceError(f"{name} cannot be decrypted: it is damaged, or for another key ({fault}).") from None


def seal_of(identity: str | None) -> Seal:
    return Plain() if identity is None else Age(identity)
