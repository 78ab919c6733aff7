from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.errors import RequestError
from headwater_server.net.keys import (
    ROLES,
    AccessKey,
    AdminKeys,
    Right,
    hash_key,
    new_key,
    read_key_file,
    why_weak,
    write_key_file,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_written_key_is_read_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "admin-key"
    key = new_key(bytes)
    write_key_file(path, key)
    write_key_file(path, key)  # replaces
    assert read_key_file(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    with pytest.raises(RequestError, match="shorter"):
        read_key_file(tmp_path / "key")


def test_a_key_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe" * 40)
    with pytest.raises(RequestError, match="not UTF-8"):
        read_key_file(tmp_path / "key")


def test_a_key_that_is_no_text_is_wrong() -> None:
    """Header bytes that are no text come as surrogates."""
    with pytest.raises(RequestError) as caught:
        AdminKeys(hash_key("right" * 8)).require(b"\xff\xfe".decode(errors="surrogateescape"))
    assert caught.value.code == "unauthenticated"


def test_only_the_valid_key_opens() -> None:
    keys = AdminKeys(hash_key("right" * 8))
    keys.require("right" * 8)
    for wrong in (None, "", "wrong" * 8, "right" * 8 + "x"):
        with pytest.raises(RequestError) as caught:
            keys.require(wrong)
        assert caught.value.code == "unauthenticated"
    keys.replace(hash_key("new" * 10))
    keys.require("new" * 10)
    with pytest.raises(RequestError):
        keys.require("right" * 8)


def test_before_a_key_is_loaded_none_is_valid() -> None:
    with pytest.raises(RequestError):
        AdminKeys(b"").require("")


def test_keys_of_others_open_what_their_role_says() -> None:
    keys = AdminKeys(hash_key("own" * 10))
    used: list[str] = []
    keys.used = lambda key: used.append(key.name)
    keys.replace_others([AccessKey(role, role, hash_key(role * 8), 0) for role in ROLES])
    for role, rights in ROLES.items():
        for right in Right:
            if right in rights:
                keys.require(role * 8, right)
                continue
            with pytest.raises(
                RequestError, match=f"the key '{role}' is for the role {role}; this needs"
            ) as caught:
                keys.require(role * 8, right)
            assert caught.value.code == "forbidden"
    assert set(used) == set(ROLES)
    with pytest.raises(RequestError):
        keys.require("read" * 8)  # the narrowest right, unless another is said
    keys.replace_others([])
    with pytest.raises(RequestError) as gone:
        keys.require("read" * 8, Right.DESCRIBE)
    assert gone.value.code == "unauthenticated"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("x" * 31, "shorter"),
        ("0123456789a" * 4, "different"),
        ("my-Example-0123456789-abcdefghijk", "'example'"),
        ("0123456789-abcdefghijk-PASSWORD-z", "'password'"),
    ],
)
def test_keys_that_others_may_guess_are_weak(key: str, reason: str) -> None:
    assert reason in (why_weak(key) or "")


def test_our_own_keys_are_not_weak() -> None:
    chance = random.Random(1)
    assert [key for key in (new_key(chance.randbytes) for _ in range(2000)) if why_weak(key)] == []
