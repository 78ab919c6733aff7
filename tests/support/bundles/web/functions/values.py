from datetime import datetime
from typing import Any

from headwater import Int64, QueryCtx, query


@query
def typed(
    ctx: QueryCtx,
    whole: int,
    real: float,
    marked: Int64,
    text: str,
    content: bytes,
    moment: datetime,
    rest: list[Any],
) -> dict[str, Any]:
    """Give back what came, with what Python took each for."""
    given = {
        "whole": whole,
        "real": real,
        "marked": marked,
        "text": text,
        "content": content,
        "moment": moment,
        "rest": rest,
    }
    return {"given": given, "types": {name: type(value).__name__ for name, value in given.items()}}
