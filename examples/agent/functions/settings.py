"""Which model answers. Set with `headwater env`, without a deploy."""

from headwater import Environment, Secret


class Model(Environment):
    model_key: Secret[str]
    model_url: str = "http://127.0.0.1:8300/v1"
    model_name: str = "stand-in"
