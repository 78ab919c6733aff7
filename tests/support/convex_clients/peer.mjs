// Convex's client of JavaScript, driven over standard input and output: a line of JSON for each command, answer and event.
import { createInterface } from "node:readline";
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi, getFunctionName } from "convex/server";
import { convexToJson, jsonToConvex } from "convex/values";

const told = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const failure = (error) => ({
  name: error.name,
  message: error.message,
  ...(error.data === undefined ? {} : { data: convexToJson(error.data) }),
});
const reference = (name) => {
  const [module, member] = name.split(":");
  let at = anyApi;
  for (const part of [...module.split("/"), member]) at = at[part];
  if (getFunctionName(at) !== name) throw new Error(`${name} is another function`);
  return at;
};
const values = (args) => jsonToConvex(args ?? {});

let client;
let http;
const watches = new Map();
let serial = 0;

// What goes to the console would mix with the lines; the client writes logs there.
const lines = [];
for (const level of ["log", "info", "debug", "warn", "error"]) console[level] = (...parts) => lines.push([level, ...parts.map(String)]);

const commands = {
  open: ({ url, options }) => {
    client = new ConvexClient(url, options);
  },
  watch: ({ name, args, pages }) => {
    const number = ++serial;
    const show = (value) => told({ watch: number, value: convexToJson(value ?? null) });
    const fail = (error) => told({ watch: number, failure: failure(error) });
    const stop =
      pages === undefined
        ? client.onUpdate(reference(name), values(args), show, fail)
        : client.onPaginatedUpdate_experimental(
            reference(name),
            values(args),
            { initialNumItems: pages },
            (result) => {
              watches.get(number).result = result;
              told({ watch: number, value: { rows: convexToJson(result.results), status: result.status } });
            },
            fail,
          );
    watches.set(number, { stop });
    return number;
  },
  more: ({ watch, count }) => watches.get(watch).result.loadMore(count),
  unwatch: ({ watch }) => watches.get(watch).stop(),
  mutate: async ({ name, args, append }) => {
    const optimisticUpdate =
      append &&
      ((store) => {
        const query = reference(append.name);
        const before = store.getQuery(query, values(append.args));
        if (before !== undefined) store.setQuery(query, values(append.args), [...before, values(append.row)]);
      });
    return convexToJson(await client.mutation(reference(name), values(args), { optimisticUpdate }));
  },
  act: async ({ name, args }) => convexToJson(await client.action(reference(name), values(args))),
  query: async ({ name, args }) => convexToJson(await client.query(reference(name), values(args))),
  auth: ({ tokens }) => {
    client.setAuth(
      async () => (tokens.length > 1 ? tokens.shift() : tokens[0]),
      (isAuthenticated) => told({ auth: isAuthenticated }),
    );
  },
  sign_out: () => client.client.clearAuth(),
  admin: ({ key, identity }) => client.client.setAdminAuth(key, identity),
  http: async ({ url, kind, name, args, token, key, identity }) => {
    http = new ConvexHttpClient(url, { logger: false });
    if (token) http.setAuth(token);
    if (key) http.setAdminAuth(key, identity);
    return convexToJson(await http[kind](reference(name), values(args)));
  },
  state: () => ({ ...client.connectionState(), timeOfOldestInflightRequest: null }),
  lines: () => lines.splice(0),
  close: () => client?.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...fields } = JSON.parse(line);
  // Not awaited: commands that wait do not hold up those behind them.
  (async () => commands[op](fields))().then(
    (result) => told({ id, result: result ?? null }),
    (error) => told({ id, failure: failure(error) }),
  );
}
await client?.close();
process.exit(0);
