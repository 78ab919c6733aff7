from __future__ import annotations

import msgspec
import pytest
from headwater_storage.limits import field_count


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_fields_are_counted_whatever_the_head_of_the_map_is(count: int) -> None:
    document = {f"f{number}": number for number in range(count)}
    assert field_count(msgspec.msgpack.encode(document)) == count
