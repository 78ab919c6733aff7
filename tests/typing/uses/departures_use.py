"""Code against the stubs of `examples/departures`."""

from datetime import UTC, datetime

import departures_api as api
import headwater

ROW: api.FlightRow = {
    "origin": "JFK",
    "moment": datetime(2013, 1, 1, tzinfo=UTC),
    "scheduled": datetime(2013, 1, 1, tzinfo=UTC),
    "carrier": "UA",
    "number": 1,
    "destination": "SFO",
    "tail_number": None,
    "delay_min": 3,
}


async def right(client: headwater.Client) -> datetime | None:
    recorded: int = await client.mutation(api.flights.record, rows=[ROW])
    board = await client.query(api.flights.board, origin="JFK", limit=recorded)
    weather = board[0]["weather"]
    if weather is not None and weather["wind_mph"] is not None and weather["wind_mph"] > 30.5:
        print(board[0]["aircraft"])
    return await client.query(api.flights.latest)


async def wrong(client: headwater.Client) -> None:
    await client.query(api.flights.board, origin="SFO")  # error
    await client.mutation(api.flights.record, rows=[{"origin": "JFK"}])  # error
    await client.mutation(api.flights.record, rows=ROW)  # error
    await client.query(api.flights.latest, origin="JFK")  # error
    board = await client.query(api.flights.board, origin="JFK")
    board[0]["weather"]["wind_mph"]  # error
    latest: datetime = await client.query(api.flights.latest)  # error
    print(latest)
