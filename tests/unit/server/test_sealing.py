"""Sealed values: opened with their key and name alone, and every way in which they cannot be is told with the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.errors import InternalError, RequestError
from headwater_server.sealing import SealKey

if TYPE_CHECKING:
    from pathlib import Path


def test_a_value_comes_back_and_is_sealed_otherwise_each_time(tmp_path: Path) -> None:
    key = SealKey(tmp_path / "key", tmp_path / "data")
    one, two = (key.seal("NAME", "the value", os.urandom) for _ in range(2))
    assert one != two
    assert b"value" not in one
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    again = SealKey(tmp_path / "key", tmp_path / "data")
    assert [again.unseal("NAME", sealed) for sealed in (one, two)] == ["the value"] * 2


def test_a_sealed_value_belongs_to_its_name_and_a_changed_one_is_told(tmp_path: Path) -> None:
    key = SealKey(tmp_path / "key", tmp_path / "data")
    sealed = key.seal("NAME", "the value", os.urandom)
    with pytest.raises(InternalError, match="OTHER is damaged"):
        key.unseal("OTHER", sealed)
    for place in range(8, len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(InternalError, match="NAME is damaged"):
            key.unseal("NAME", bytes(changed))
    for short in (b"", sealed[:7], sealed[:12], sealed[:20]):
        with pytest.raises(InternalError, match=r"damaged|another key"):
            key.unseal("NAME", short)


def test_a_key_that_is_not_the_one_is_told_and_looked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "key"
    sealed = SealKey(file, tmp_path / "data").seal("NAME", "the value", os.urandom)
    right = file.read_text()
    key = SealKey(file, tmp_path / "data")
    file.unlink()
    with pytest.raises(InternalError, match="there is no key file"):
        key.unseal("NAME", sealed)
    file.write_text("hw-seal-short\n")
    with pytest.raises(InternalError, match="holds no key"):
        key.unseal("NAME", sealed)
    file.write_bytes(b"\xff")
    with pytest.raises(InternalError, match="cannot be read: it is not text"):
        key.unseal("NAME", sealed)
    file.write_text(right)
    assert key.unseal("NAME", sealed) == "the value"
    SealKey(tmp_path / "other", tmp_path / "data").seal("X", "x", os.urandom)
    with pytest.raises(InternalError, match="another key than the one in"):
        SealKey(tmp_path / "other", tmp_path / "data").unseal("NAME", sealed)


def test_the_key_is_not_kept_with_what_it_opens(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(RequestError, match="environment_key_file"):
        SealKey(data / "key", data).seal("NAME", "x", os.urandom)
    assert not list(data.iterdir())
