// The start page: what a deployment has, and what goes on in it. All that comes from the server is shown as text.

const LOG_LINES_MAX = 500;
const PAGE_SIZE = 20;
const KEY = "headwater-key";
const PAUSE_MS = 1_000;
const PAUSE_MAX_MS = 15_000;

const at = (id) => document.getElementById(id);
let following = new AbortController();

/** Ask the server; throws what it says is wrong. */
async function ask(path, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = key === null ? {} : { Authorization: `Headwater ${key}` };
  const answer = await fetch(path, { headers, signal, cache: "no-store" });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.message ?? `the server answers ${answer.status}`), { code: told.code });
  }
  return answer;
}

const json = async (path) => (await ask(path)).json();

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) {
    made.setAttribute(attribute, value);
  }
  return made;
}

function row(cells, name = "td") {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const data = document.createElement(name);
    data.append(cell);
    made.append(data);
  }
  return made;
}

/** A value as short text. */
function brief(value) {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

function argumentsOf(schema) {
  const required = new Set(schema.required ?? []);
  return Object.keys(schema.properties ?? {})
    .map((name) => (required.has(name) ? name : `${name}?`))
    .join(", ");
}

async function showFunctions() {
  const { manifest } = await json("/api/admin/manifest");
  const found = manifest.functions.toSorted((one, other) => (one.name < other.name ? -1 : 1));
  at("functions")
    .querySelector("tbody")
    .replaceChildren(
      ...found.map((item) =>
        row([item.name, item.internal ? `${item.kind}, internal` : item.kind, argumentsOf(item.arguments), item.doc ?? ""]),
      ),
    );
  document.querySelector(".empty").hidden = found.length > 0;
}

async function showTables() {
  const { tables } = await json("/api/admin/tables");
  const rows = tables.map((table) => {
    const open = element("button", table.name, { type: "button" });
    open.addEventListener("click", () => showDocuments(table.name).catch(complain));
    return row([open, table.more ? `more than ${table.documents}` : String(table.documents), table.indexes.join(", ")]);
  });
  at("tables").querySelector("tbody").replaceChildren(...rows);
}

async function showDocuments(table, cursor) {
  const query = new URLSearchParams({ table, limit: String(PAGE_SIZE), ...(cursor === undefined ? {} : { cursor }) });
  const page = await json(`/api/admin/documents?${query}`);
  const box = at("documents");
  const columns = [...new Set(page.documents.flatMap(Object.keys))];
  at("documents-title").textContent = page.documents.length > 0 ? `${table}, the newest first` : `${table} is empty`;
  box.querySelector("thead").replaceChildren(row(columns, "th"));
  box
    .querySelector("tbody")
    .replaceChildren(
      ...page.documents.map((document) => row(columns.map((name) => (name in document ? brief(document[name]) : "")))),
    );
  const more = at("more");
  more.hidden = page.cursor === null;
  more.onclick = () => showDocuments(table, page.cursor).catch(complain);
  box.hidden = false;
}

/** An event of the log as lines of text. */
function lines(event) {
  if (event.type === "dropped") {
    return [`… ${event.count ?? "some"} events are left out: they came faster than they were taken`];
  }
  const took = event.run_ms ?? event.total_ms;
  const head = [
    new Date(event.time_ms).toLocaleTimeString(),
    event.kind,
    event.function,
    event.outcome ?? "goes on",
    took === undefined ? "" : `${took.toFixed(1)} ms`,
    event.request_id === undefined ? "" : `request ${event.request_id}`,
  ];
  const printed = (event.lines ?? []).map(({ level, text }) => `    ${level === "info" ? "" : `${level}: `}${text}`);
  const trace = event.trace ?? event.error;
  return [head.filter(Boolean).join(" "), ...printed, ...(trace === undefined ? [] : [trace.trimEnd()])];
}

function showEvent(event) {
  const list = at("log");
  const isError = event.level === "error" || event.error !== undefined;
  list.prepend(element("li", lines(event).join("\n"), isError ? { class: "error" } : {}));
  while (list.children.length > LOG_LINES_MAX) {
    list.lastElementChild.remove();
  }
}

/** The events of a stream, a line of JSON each. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader(); // not every browser iterates over streams
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    yield* whole.filter(Boolean).map((line) => JSON.parse(line));
  }
}

/** Follow the log until told otherwise, from where it was lost if it is. */
async function follow(signal) {
  let after;
  let pauseMs = PAUSE_MS;
  while (!signal.aborted) {
    try {
      const query = new URLSearchParams({
        follow: "true",
        level: at("level").value,
        quiet: String(at("quiet").checked),
        limit: "100",
        ...(after === undefined ? {} : { after: String(after) }),
      });
      const answer = await ask(`/api/admin/logs?${query}`, signal);
      at("state").textContent = "ready";
      pauseMs = PAUSE_MS;
      for await (const event of events(answer.body)) {
        after = event.id ?? after;
        showEvent(event);
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      if (error.code !== undefined) {
        throw error;
      }
    }
    at("state").textContent = "the server does not answer; trying again …";
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    pauseMs = Math.min(2 * pauseMs, PAUSE_MAX_MS);
  }
}

function followAnew() {
  following.abort();
  following = new AbortController();
  at("log").replaceChildren();
  follow(following.signal).catch(complain);
}

function complain(error) {
  const problem = at("problem");
  problem.textContent = error.message;
  problem.hidden = false;
  if (error.code === "unauthenticated" || error.code === "forbidden") {
    forget();
  }
}

function forget() {
  following.abort();
  sessionStorage.removeItem(KEY);
  at("inside").hidden = at("forget").hidden = true;
  at("hint").hidden = false;
}

async function lookInside() {
  at("problem").hidden = true;
  await Promise.all([showFunctions(), showTables()]);
  at("inside").hidden = at("forget").hidden = false;
  at("hint").hidden = true;
  at("key").value = "";
  followAnew();
}

async function start() {
  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, at("key").value.trim());
    lookInside().catch(complain);
  });
  at("forget").addEventListener("click", forget);
  at("level").addEventListener("change", followAnew);
  at("quiet").addEventListener("change", followAnew);
  const health = await json("/health");
  at("version").textContent = health.version;
  at("state").textContent = health.status;
  if (sessionStorage.getItem(KEY) !== null) {
    await lookInside();
  }
}

start().catch(complain);
