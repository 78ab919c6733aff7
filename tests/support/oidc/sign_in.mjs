// Signs in with a provider as a page does, by the built TypeScript client. Prints the address to go to, is then told
// where the browser was sent back to, and prints what came of it.

import { createInterface } from "node:readline";
import { AccountClient } from "../../../clients/typescript/dist/accounts/index.js";

const [url, redirectUri] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const account = new AccountClient(url);
await account.startWith("test", redirectUri, (address) => console.log(address));
const { value: back } = await lines.next();
const finished = await account.finish(back);
const token = await account.fetchToken({ forceRefresh: false });
console.log(JSON.stringify({ finished, token, again: await account.finish(back) }));
await account.startWith("test", redirectUri, (address) => console.log(address));
const { value: refusal } = await lines.next();
const error = await account.finish(refusal).catch(({ code, message }) => `${code}: ${message}`);
console.log(JSON.stringify({ error }));
process.exit(0);
