"""Credentials for a NATS server: a user with a password, a token, or an nkey."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from trio_rpc.errors import Refused
from trio_rpc.util.extras import needs_extra

__all__ = ["Credentials", "NKey", "Token", "UserPassword", "login_options"]


@dataclass(frozen=True, slots=True)
class UserPassword:
    """A user and a password, which the server receives as they are: use TLS.

    Attributes:
        user: the name of the user.
        password: the password; it is not shown in ``repr``.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token, which the server receives as it is: use TLS.

    Attributes:
        token: the token; it is not shown in ``repr``.
    """

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NKey:
    """An Ed25519 key, which stays here: it signs a number of the server. Needs the extra "nats".

    Attributes:
        seed: the key's seed as ``nk -gen user`` prints it, ``SU…``; it is not shown in ``repr``.
    """

    seed: str = field(repr=False)


Credentials: TypeAlias = UserPassword | Token | NKey


def login_options(credentials: Credentials | None, info: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of CONNECT that identifies this client.

    Args:
        credentials: see above.
        info: the server's INFO.

    Raises:
        Refused: the server has sent nothing to sign.
        ValueError: the seed is not valid.
        ModuleNotFoundError: the extra "nats" is not installed.
    """
    match credentials:
        case UserPassword(user, password):
            return {"user": user, "pass": password}
        case Token(token):
            return {"auth_token": token}
        case NKey(seed):
            return _signed(seed, info.get("nonce"))
        case _:
            return {}


def _signed(seed: str, nonce: object) -> dict[str, str]:
    try:
        import nkeys  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as exc:
        text = needs_extra("an NKey", "nats", exc)
        if text is None:
            raise
        raise ModuleNotFoundError(text, name=exc.name) from exc
    if not isinstance(nonce, str) or not nonce:
        raise Refused("the NATS server is not configured for nkeys: it has sent nothing to sign")
    try:
        key = nkeys.from_seed(seed.encode())
        signature = key.sign(nonce.encode())
    except Exception as exc:
        raise ValueError(
            "not the seed of an nkey: it begins with SU and has 58 characters"
        ) from exc
    return {
        "nkey": key.public_key.decode(),
        "sig": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
    }
