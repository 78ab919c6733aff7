import { beforeEach, expect, test } from "vitest";
import { Authentication } from "../src/authentication.js";
import { HandEnvironment } from "./support/environment.js";

let environment: HandEnvironment;
let asked: (string | null)[];
let told: (boolean | "refreshing")[];
let refreshes: boolean[];
let fetched: boolean[];
let tokens: (string | null)[];
let authentication: Authentication;

beforeEach(() => {
  environment = new HandEnvironment();
  [asked, told, refreshes, fetched, tokens] = [[], [], [], [], []];
  authentication = new Authentication(
    environment,
    (token, refresh) => {
      asked.push(token);
      refreshes.push(refresh);
    },
    () => {},
  );
});

/** Sign in, with the tokens of `tokens` one after the other. */
async function signIn(): Promise<void> {
  authentication.set(
    async ({ forceRefresh }) => {
      fetched.push(forceRefresh);
      const token = tokens.shift();
      if (token === undefined) {
        throw new Error("the sign-in service is down");
      }
      return token;
    },
    (authenticated, isRefreshing) => told.push(isRefreshing ? "refreshing" : authenticated),
  );
  await settled();
}

/** Let what was fetched arrive. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
}

function tokenUntil(seconds: number): string {
  const payload = { exp: environment.wallMs() / 1000 + seconds, name: "Zoë" };
  return `head.${Buffer.from(JSON.stringify(payload)).toString("base64url")}.signature`;
}

test("it is told once the server has accepted the token", async () => {
  tokens = ["a"];
  await signIn();
  expect([asked, told, fetched]).toStrictEqual([["a"], [], [false]]);
  authentication.accepted();
  authentication.accepted();
  expect(told).toStrictEqual([true]);
});

test("before the first token has come, it holds what is asked", async () => {
  tokens = [null];
  const done = signIn();
  expect(authentication.holds).toBe(true);
  await done;
  expect([authentication.holds, told, asked]).toStrictEqual([false, [false], []]);
});

test("a token that is refused is replaced by a fresh one, a few times", async () => {
  tokens = ["old", "fresh", "fresher"];
  await signIn();
  authentication.refused();
  await settled();
  authentication.accepted();
  expect([asked, told, fetched]).toStrictEqual([["old", "fresh"], [true], [false, true]]);
  for (let time = 0; time < 3; time++) {
    authentication.refused();
    await settled();
  }
  expect(asked).toStrictEqual(["old", "fresh", "fresher", null]);
  expect(told).toStrictEqual([true, false]);
});

test("a token that is taken back is replaced, and meanwhile nobody is signed in", async () => {
  tokens = ["old", "fresh"];
  await signIn();
  authentication.accepted();
  authentication.lost();
  authentication.lost();
  await settled();
  expect([asked, refreshes, told]).toStrictEqual([
    ["old", "fresh"],
    [false, true],
    [true, "refreshing"],
  ]);
  authentication.accepted();
  authentication.lost();
  await settled();
  expect(asked).toStrictEqual(["old", "fresh", null]);
  expect(told).toStrictEqual([true, "refreshing", true, "refreshing", false]);
});

test("a token is replaced before it runs out", async () => {
  tokens = [tokenUntil(100), "next"];
  await signIn();
  environment.pass(69_000);
  expect(fetched).toStrictEqual([false]);
  environment.pass(2_000);
  await settled();
  expect([fetched, asked.at(-1)]).toStrictEqual([[false, true], "next"]);
});

test("whoever signs out is asked for as nobody, and the last sign-in counts", async () => {
  tokens = ["a", "b"];
  const [first, second] = [signIn(), signIn()];
  await Promise.all([first, second]);
  expect(asked).toStrictEqual(["b"]);
  authentication.clear();
  expect(asked).toStrictEqual(["b", null]);
  authentication.refused();
  expect(fetched).toHaveLength(2);
});

test("a service that fails is told of, and signs nobody in", async () => {
  await signIn();
  expect([told, environment.logged]).toStrictEqual([[false], ["fetchToken failed"]]);
});

test("a fresh token of another user is another sign-in, so that no call goes out as that user's", async () => {
  const of = (sub: string, exp: number) =>
    `head.${Buffer.from(JSON.stringify({ iss: "https://id.example", sub, exp })).toString("base64url")}.signature`;
  tokens = [of("ada", 1), of("ada", 2), of("bob", 3)];
  await signIn();
  authentication.lost();
  await settled();
  authentication.lost();
  await settled();
  expect(refreshes).toStrictEqual([false, true, false]);
});
