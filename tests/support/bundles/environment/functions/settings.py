from headwater import Environment, Secret


class Settings(Environment):
    api_key: Secret[str]
    limit: int = 10
    regions: list[str] = []  # noqa: RUF012 - msgspec copies it
