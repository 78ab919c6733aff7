"""The admin key over starts, rotations and crashes: some file must always hold the key that is valid."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from headwater_protocol.errors import RequestError
from headwater_server.functions.deployment_key import DeploymentKey
from headwater_server.net.keys import AdminKeys, hash_key, read_key_file


class PowerCutError(Exception):
    """The machine stops here."""


@dataclass
class Machine:
    """A data folder and the stored hash: what outlives a daemon.

    Attributes:
        folder: The data folder.
        stored: The hash in the database.
        cut: Stop when the hash is to be stored: before it is, or right after.
        synced: What has been made durable, in order.
    """

    folder: Path
    stored: bytes | None = None
    cut: str = ""
    synced: list[str] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def read(self) -> bytes | None:
        return self.stored

    async def write(self, valid_hash: bytes) -> None:
        self.synced.append("hash")
        if self.cut == "before":
            raise PowerCutError
        await asyncio.sleep(0)
        self.stored = valid_hash
        if self.cut == "after":
            raise PowerCutError

    async def start(self, given: Path | None = None) -> tuple[DeploymentKey, AdminKeys]:
        keys = AdminKeys(b"")
        key = DeploymentKey(self, keys, self.folder, given, self.chance.randbytes)
        await key.load()
        return key, keys

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    sync = os.fsync

    def note(descriptor: int) -> None:
        machine.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return machine


async def test_the_first_key_is_durable_before_its_hash(machine: Machine) -> None:
    key, keys = await machine.start()
    keys.require(read_key_file(key.file))
    assert machine.names() == ["admin-key"]
    assert stat.S_IMODE(key.file.stat().st_mode) == 0o600
    assert machine.synced.index("hash") > machine.synced.index("admin-key")
    assert machine.synced[-2:] == [machine.folder.name, "hash"]


async def test_a_first_start_that_was_cut_off_is_taken_up(machine: Machine) -> None:
    machine.cut = "before"
    with pytest.raises(PowerCutError):
        await machine.start()
    machine.cut = ""
    made = read_key_file(machine.folder / "admin-key")
    (machine.folder / "admin-key.new").write_text("half a k")
    machine.synced.clear()
    _, keys = await machine.start()
    keys.require(made)
    assert machine.synced == ["admin-key", machine.folder.name, "hash"]
    assert machine.names() == ["admin-key"]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_rotation_that_was_cut_off_leaves_the_valid_key_in_the_file(
    machine: Machine, cut: str, given: bool, caplog: pytest.LogCaptureFixture
) -> None:
    own = machine.folder / "own-key" if given else None
    if own is not None:
        own.write_text("a-key-of-my-own-that-is-long-enough\n")
    key, _ = await machine.start(own)
    old = read_key_file(key.file)
    machine.cut = cut
    with pytest.raises(PowerCutError):
        await key.rotate()
    machine.cut = ""
    key, keys = await machine.start(own)
    now = read_key_file(key.file)
    keys.require(now)
    assert (now == old) == (cut == "before")
    assert machine.stored == hash_key(now)
    assert machine.names() == [key.file.name]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_rotation_is_durable_before_its_hash_and_in_place_after(machine: Machine) -> None:
    key, keys = await machine.start()
    machine.synced.clear()
    new = await key.rotate()
    folder = machine.folder.name
    assert machine.synced == ["admin-key.new", folder, "hash", "admin-key", folder]
    assert read_key_file(key.file) == new
    assert stat.S_IMODE(key.file.stat().st_mode) == 0o600
    keys.require(new)


async def test_rotations_at_the_same_time_do_not_meet(machine: Machine) -> None:
    key, keys = await machine.start()
    made = await asyncio.gather(*[key.rotate() for _ in range(8)])
    assert len(set(made)) == 8
    valid = read_key_file(key.file)
    assert valid in made
    keys.require(valid)
    assert machine.stored == hash_key(valid)
    assert machine.names() == ["admin-key"]


@pytest.mark.parametrize("content", [None, b"short", b"\xff" * 40, b"another-key-that-is-long-enough\n"])
async def test_a_lost_key_file_is_told_with_what_to_do(
    machine: Machine, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = await machine.start()
    valid = read_key_file(key.file)
    key.file.unlink()
    if content is not None:
        key.file.write_bytes(content)
    _, keys = await machine.start()
    keys.require(valid)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == "admin_key_not_found"
    assert "--admin-key-file" in record.fields["advice"]  # type: ignore[attr-defined]
    assert valid not in str(record.__dict__)
    assert "another-key" not in str(record.__dict__)


async def test_a_file_that_cannot_be_written_leaves_the_old_key(machine: Machine) -> None:
    key, keys = await machine.start()
    (machine.folder / "admin-key.new").mkdir()
    with pytest.raises(RequestError, match="no new key"):
        await key.rotate()
    keys.require(read_key_file(key.file))


async def test_a_file_that_cannot_be_replaced_does_not_cost_the_new_key(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    key, keys = await machine.start()
    key.file.unlink()
    key.file.mkdir()
    new = await key.rotate()
    keys.require(new)
    assert "key_file_not_replaced" in caplog.messages
    assert new not in caplog.text
    with pytest.raises(RequestError, match="no new key"):
        await key.rotate()  # would remove the only file that holds the valid one
    keys.require(new)
    key.file.rmdir()
    key, keys = await machine.start()
    assert read_key_file(key.file) == new
