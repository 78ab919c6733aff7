"""Who a token is from: its form, its provider, the provider's keys, its claims."""
