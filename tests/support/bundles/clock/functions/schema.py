from headwater import Index, Table


class Mark(Table, name="marks"):
    session: int
    number: int

    by_session = Index("session", "number")
