"""A real OpenID Connect provider, npm's `oidc-provider`, as a process of its own on loopback."""
