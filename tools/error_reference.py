"""Write `docs/reference/errors.md` from the error table.

`python -m tools.error_reference`
"""

from __future__ import annotations

from headwater_protocol.errors import ERROR_CODES, Retry

from tools.checkout import ROOT

PAGE = ROOT / "docs" / "reference" / "errors.md"

_RETRY = {
    Retry.NEVER: "no",
    Retry.SAME_REQUEST: "the same request, later",
    Retry.AFTER_RECONNECT: "after reconnecting",
}

_INTRODUCTION = """\
# Errors

Generated from `protocol/headwater_protocol/errors.py`; do not edit.

Every error has a code, which is stable, a message for people, which is not, and for errors that your functions raise the
data you gave them. *Retry* says what a caller may do; *close* is the WebSocket's close code where an error ends the
connection.

| code | what happened | retry | HTTP | close |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """Return the reference page."""
    rows = (
        f"| `{row.code}` | {row.message} | {_RETRY[row.retry]} | {row.http_status} | {row.close_code or ''} |\n"
        for row in ERROR_CODES.values()
    )
    return _INTRODUCTION + "".join(rows)


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
