/**
 * What the client costs: bytes to load, time to apply a change. Prints one JSON object; `benchmarks/web_client.py`
 * runs it. It takes the built package (`npm run build`), as users have it.
 */

import { ClientSession } from "../dist/session.js";
import { decodeValue, encodeValue } from "../dist/values.js";
import { loadedBytes, MSGPACK } from "./size.mjs";

const ROWS = 1_000;
const [, , slices = "8", sliceMs = "500"] = process.argv;

const CORE = new URL("../dist/index.js", import.meta.url).pathname;

function row(number) {
  return {
    _id: `101j1bmucgd0v000024gl6f53p6u${String(number).padStart(4, "0")}`,
    _creationTime: 1795216694370000 + number,
    airline: "Wolkenflug",
    flight: `WF ${number}`,
    destination: "Sankt Peter-Ording",
    gate: `B${number % 40}`,
    planned: 1795216694 + 60 * number,
    expected: 1795216694 + 60 * number,
    status: "scheduled",
    remarks: ["bring water", "no wind"],
  };
}

/** A session that shows the rows, and how it takes one transition after another. */
function showing() {
  const session = new ClientSession(new Uint8Array(16), "bench");
  const query = session.subscribe("flights:board", encodeValue({}));
  session.connect();
  session.takeFrames();
  session.receive(frame([33, 1, new Uint8Array(16), 1, 1 << 24, 15_000]));
  session.takeFrames();
  let version = [0, 0, 0];
  let ts = 1;
  return (body) => {
    const end = [1, 0, ++ts];
    const bytes = frame([34, version, end, [[query, body]]]);
    version = end;
    return { bytes, take: () => session.receive(bytes) };
  };
}

function frame(message) {
  return encodeValue(message);
}

const DIGEST = new Uint8Array(16);

/** One row in at the front, the last one out, one field of one in the middle changed. */
function operations(number) {
  return encodeValue([
    0,
    [
      [1, [row(number)]],
      [0, 0, 500],
      [2, 500, { status: `boarding ${number}` }, []],
      [0, 501, ROWS - 502],
    ],
  ]);
}

function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)];
}

/**
 * Return how many ms a call takes, the median of as many as a slice has room for; `prepare` is not counted. What
 * else the machine does interrupts some calls and not most.
 */
function sliceOf(prepare, call) {
  const calls = [];
  for (const end = performance.now() + Number(sliceMs); performance.now() < end; ) {
    const prepared = prepare(calls.length);
    const began = performance.now();
    call(prepared);
    calls.push(performance.now() - began);
  }
  return median(calls);
}

const rows = Array.from({ length: ROWS }, (_, number) => row(number));
const content = encodeValue(rows);
const json = JSON.stringify(rows);

const next = showing();
next([0, content, DIGEST, null]).take();
const ours = [];
const limit = [];
const whole = [];
for (let slice = 0; slice <= Number(slices); slice++) {
  ours.push(
    sliceOf(
      (number) => next([1, operations(number), DIGEST, null]),
      ({ take }) => take(),
    ),
  );
  limit.push(sliceOf(() => json, JSON.parse));
  whole.push(sliceOf(() => content, decodeValue));
}
for (const measured of [ours, limit, whole]) {
  measured.shift(); // the first slice warms up
}

console.log(
  JSON.stringify({
    node: process.version,
    rows: ROWS,
    core: await loadedBytes(CORE),
    core_without_msgpack: await loadedBytes(CORE, MSGPACK),
    delta_ms: median(ours),
    json_ms: median(limit),
    whole_ms: median(whole),
    delta_bytes: operations(1).length,
    json_bytes: json.length,
    ratios: limit.map((ms, place) => ms / ours[place]),
  }),
);
