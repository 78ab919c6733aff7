from headwater import jwt_provider

KEYS = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "kid": "tests",
            "alg": "EdDSA",
            "x": "wFWKtoUZZbwb_QZCyPOzzJd-7K9UvMcWFpl2QqZArgk",
        }
    ]
}

jwt_provider(issuer="https://staff.example", audience="tests", jwks=KEYS)
jwt_provider(issuer="https://guests.example", audience="tests", jwks=KEYS)
