// A real OpenID Connect provider on loopback, for tests, with faults before it on request.
//
// Prints its issuer as a line of JSON; then takes lines of JSON on its standard input and answers each with one.
// {"fault": null | "down" | "redirect" | "slow" | "huge" | "stranger"} chooses what requests meet;
// {"keys": ["a", "b"]} makes it sign with keys of these names, the first one for new tokens. Ends with its input.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const RESOURCE = "urn:app";
const pairs = new Map();

function keys(names) {
  return names.flatMap((name) => {
    if (!pairs.has(name)) {
      pairs.set(name, [
        jwk(name, "RS256", generateKeyPairSync("rsa", { modulusLength: 2048 })),
        jwk(name, "ES256", generateKeyPairSync("ec", { namedCurve: "P-256" })),
      ]);
    }
    return pairs.get(name);
  });
}

function jwk(name, alg, pair) {
  return { ...pair.privateKey.export({ format: "jwk" }), kid: `${name}-${alg}`, alg, use: "sig" };
}

function client(name, alg, more) {
  return { client_id: name, client_secret: `secret-of-${name}`, id_token_signed_response_alg: alg, ...more };
}

const person = {
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  redirect_uris: ["http://127.0.0.1/callback"],
};
const machine = { grant_types: ["client_credentials"], response_types: [], redirect_uris: [] };

function provider(issuer, names) {
  const made = new Provider(issuer, {
    jwks: { keys: keys(names) },
    clients: [
      client("web", "RS256", { ...person, token_endpoint_auth_method: "client_secret_post" }),
      client("phone", "ES256", { ...person, token_endpoint_auth_method: "client_secret_post" }),
      client("job", "RS256", { ...machine, token_endpoint_auth_method: "client_secret_post" }),
    ],
    cookies: { keys: ["a cookie of a test"] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `Name of ${id}`, email: `${id}@example.com`, email_verified: true }),
    }),
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => ({
          scope: "read",
          audience: resource,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
    issueRefreshToken: () => true,
    ttl: { AccessToken: 600, ClientCredentials: 600, IdToken: 600, Grant: 600, Session: 600, Interaction: 600 },
  });
  made.on("server_error", (_, error) => console.error(error));
  return made.callback();
}

const faults = {
  down: (_, response) => response.destroy(),
  redirect: (request, response) => response.writeHead(302, { location: `${request.url}?again` }).end(),
  slow: (_, response) => {
    const drip = setInterval(() => response.write(" "), 50);
    response.on("close", () => clearInterval(drip));
  },
  huge: (_, response) => {
    const more = () => {
      while (!response.destroyed && response.write(" ".repeat(65536)));
    };
    response.on("drain", more);
    more();
  },
  stranger: (_, response) =>
    response.end(JSON.stringify({ issuer: "https://evil.example", jwks_uri: "https://evil.example/keys" })),
};

let fault = null;
let answer;
const server = createServer((request, response) => (faults[fault] ?? answer)(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer, ["a"]);
  console.log(JSON.stringify({ issuer }));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const asked = JSON.parse(line);
    if ("fault" in asked) fault = asked.fault;
    if ("keys" in asked) answer = provider(issuer, asked.keys);
    console.log(JSON.stringify({ done: true }));
  });
  lines.on("close", () => process.exit(0));
});
