// A page with Convex's hooks of React, in whatever has a document: commands show components, which tell what they show.
import * as convex from "convex/react";
import { anyApi } from "convex/server";
import { convexToJson, jsonToConvex } from "convex/values";
import { Component, createElement as h, StrictMode, useCallback, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const lines = [];
for (const level of ["log", "info", "debug", "warn", "error"]) console[level] = (...parts) => lines.push([level, ...parts.map(String)]);

let told;
/** Say what is to be called with each thing that a component shows. */
export const tellTo = (call) => {
  told = call;
};
export const failure = (error) => ({
  name: error.name,
  message: error.message,
  ...(error.data === undefined ? {} : { data: convexToJson(error.data) }),
});
const reference = (name) => {
  const [module, member] = name.split(":");
  return [...module.split("/"), member].reduce((at, part) => at[part], anyApi);
};
const values = (args) => jsonToConvex(args ?? {});

let client;
let root;
let serial = 0;
const shown = new Map();
const handles = new Map();
let update = () => {};

// What a component shows is told after each of its renderings that differs from the one before.
function tell(number, what) {
  const text = JSON.stringify(what);
  if (shown.get(number) !== text) {
    shown.set(number, text);
    told({ watch: number, ...what });
  }
}

class Boundary extends Component {
  state = {};
  static getDerivedStateFromError = (error) => ({ error });
  componentDidCatch(error) {
    tell(this.props.number, { failure: failure(error) });
  }
  render = () => (this.state.error ? null : this.props.children);
}

function Query({ number, name, args }) {
  const value = convex.useQuery(reference(name), args === "skip" ? "skip" : values(args));
  useEffect(() => tell(number, { value: value === undefined ? "loading" : convexToJson(value) }));
}

function Pages({ number, name, args, pages }) {
  const { results, status, loadMore } = convex.usePaginatedQuery(reference(name), values(args), { initialNumItems: pages });
  useEffect(() => {
    handles.set(number, loadMore);
    tell(number, { value: { rows: convexToJson(results), status } });
  });
}

function Mutation({ number, name, append }) {
  const plain = convex.useMutation(reference(name));
  const mutate = append
    ? plain.withOptimisticUpdate((store, args) => {
        const query = reference(append.name);
        const before = store.getQuery(query, values(append.args));
        if (before !== undefined) store.setQuery(query, values(append.args), [...before, { ...args, _id: "made up", _creationTime: 0 }]);
      })
    : plain;
  useEffect(() => void handles.set(number, (args) => mutate(args)));
  useEffect(() => tell(number, { value: "ready" }));
}

function Action({ number, name }) {
  const act = convex.useAction(reference(name));
  useEffect(() => void handles.set(number, (args) => act(args)));
  useEffect(() => tell(number, { value: "ready" }));
}

function Auth({ number }) {
  const { isLoading, isAuthenticated } = convex.useConvexAuth();
  useEffect(() => tell(number, { value: { isLoading, isAuthenticated } }));
}

const kinds = { query: Query, pages: Pages, mutation: Mutation, action: Action, auth: Auth };

function App() {
  const [items, setItems] = useState([]);
  update = setItems;
  return items.map((item) => h(Boundary, { key: item.number, number: item.number }, h(kinds[item.kind], item)));
}

// A provider's hook, as those of Auth0, Clerk and others: who is signed in, and how to get a token.
let tokens = [];
let setSigned = () => {};
function useSignIn() {
  const [signed, set] = useState(false);
  setSigned = set;
  const fetchAccessToken = useCallback(async () => (tokens.length > 1 ? tokens.shift() : (tokens[0] ?? null)), []);
  return { isLoading: false, isAuthenticated: signed, fetchAccessToken };
}

export const commands = {
  open: ({ url, options, first }) => {
    serial = first ?? 0;
    client = new convex.ConvexReactClient(url, options);
    root = createRoot(window.document.getElementById("root"));
    root.render(h(StrictMode, null, h(convex.ConvexProviderWithAuth, { client, useAuth: useSignIn }, h(App))));
  },
  show: ({ kind, ...fields }) => {
    const number = ++serial;
    update((items) => [...items, { number, kind, ...fields }]);
    return number;
  },
  hide: ({ watch }) => update((items) => items.filter((item) => item.number !== watch)),
  change: ({ watch, args }) => update((items) => items.map((item) => (item.number === watch ? { ...item, args } : item))),
  call: async ({ watch, args }) => convexToJson((await handles.get(watch)(values(args))) ?? null),
  more: ({ watch, count }) => handles.get(watch)(count),
  auth: (fields) => {
    tokens = fields.tokens;
    setSigned(tokens.length > 0);
  },
  lines: () => lines.splice(0),
  state: () => ({ ...client.connectionState(), timeOfOldestInflightRequest: null }),
  leave: async () => {
    root?.unmount();
    await client?.close();
  },
};
