from headwater import Index, Table


class Note(Table, name="notes"):
    """A note of a user: nobody else may read it, unless its topic is open."""

    owner: str
    topic: str
    text: str

    by_owner = Index("owner")
    by_topic = Index("topic")


class Topic(Table, name="topics"):
    name: str
    private: bool

    by_name = Index("name", unique=True)
