import { expect, test } from "vitest";
import { syncAddress } from "../src/address.js";

test.each([
  ["ws://localhost", "ws://localhost:4510/sync"],
  ["ws://localhost:80", "ws://localhost/sync"],
  ["ws://127.0.0.1:7000/", "ws://127.0.0.1:7000/sync"],
  ["http://host:4510/sync", "ws://host:4510/sync"],
  ["https://host", "wss://host/sync"],
  ["wss://host/db/", "wss://host/db/sync"],
  ["ws://[::1]:1/", "ws://[::1]:1/sync"],
])("%s is spoken to at %s", (text, address) => {
  expect(syncAddress(text)).toBe(address);
});
