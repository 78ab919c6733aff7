/** Tokens of users that tests/support/bundles/identity takes, and its functions. See tests/support/users.py. */

import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { type FunctionReference, makeApi } from "../../src/index.js";

export const STAFF = "https://staff.example";

// It opens nothing but these tests.
const KEY = createPrivateKey({
  format: "jwk",
  key: {
    kty: "OKP",
    crv: "Ed25519",
    d: "aGVhZHdhdGVyIHRlc3RzLCBhIGtleSBmb3IgdGhlbS4",
    x: "wFWKtoUZZbwb_QZCyPOzzJd-7K9UvMcWFpl2QqZArgk",
  },
});

/** Return a token of a user, another one at each call. */
export function userToken(user: string, lastsS = 3600): string {
  const nowS = Date.now() / 1000;
  const payload = {
    iss: STAFF,
    aud: "tests",
    sub: user,
    exp: nowS + lastsS,
    iat: Math.floor(nowS) - 1,
    jti: randomUUID(),
  };
  const signed = [{ alg: "EdDSA", kid: "tests" }, payload]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  return `${signed}.${sign(null, Buffer.from(signed), KEY).toString("base64url")}`;
}

interface Api {
  notes: {
    whoami: FunctionReference<"query", Record<never, never>, string | null>;
    write: FunctionReference<"mutation", { topic: string; text: string }, string>;
  };
}

export const users = makeApi<Api>();
