/** Code against the types of `examples/chat`. */

import type { Args, HeadwaterClient, Returns } from "headwater";
import { api, type Doc, type Id, type Message } from "./chat_api";

export async function right(client: HeadwaterClient): Promise<string[]> {
  const channel = await client.mutation(api.messages.open_channel, { name: "general" });
  const messages = await client.query(api.messages.list, { channel, limit: 3 });
  const sent: Id<"messages"> = await client.mutation(api.messages.send, { channel, author: "ada", body: "hi" });
  const first: Doc<"messages"> | undefined = messages[0];
  const all: readonly Message[] = await client.query(api.messages.list, { channel, limit: undefined });
  const args: Args<typeof api.messages.list> = { channel: all[0]?.channel ?? channel };
  const again: Returns<typeof api.messages.list> = await client.query(api.messages.list, args);
  return [...again.map((message) => message.body), first?.author ?? sent, new Date(again[0]?._creationTime ?? 0).toISOString()];
}

export async function wrong(client: HeadwaterClient, channel: Id<"channels">, message: Id<"messages">): Promise<void> {
  await client.query(api.messages.list); // error
  await client.query(api.messages.list, {}); // error
  await client.query(api.messages.list, { chanel: channel }); // error
  await client.query(api.messages.list, { channel, limt: 3 }); // error
  await client.query(api.messages.list, { channel: "no id of a table" }); // error
  await client.query(api.messages.list, { channel: message }); // error
  await client.query(api.messages.list, { channel, limit: "3" }); // error
  await client.query(api.messages.list, { channel, limit: null }); // error
  await client.query(api.messages.send, { channel, author: "ada", body: "hi" }); // error
  await client.mutation(api.messages.list, { channel }); // error
  await client.mutation(api.messages.send, { channel, author: "ada" }); // error
  api.messages.lst; // error
  api.message; // error
  const messages = await client.query(api.messages.list, { channel });
  messages[0]?.bdy; // error
  messages[0]?.body.toFixed(); // error
  messages.push(messages[0] as Message); // error
  messages.sort(); // error
  for (const each of messages) {
    each.body = "changed"; // error
  }
  const number: number = await client.mutation(api.messages.open_channel, { name: "general" }); // error
  const other: Id<"messages"> = channel; // error
  const none: Id<"chanels"> = channel; // error
  await client.query(api.messages.list, { channel: messages[0]?._id ?? channel }); // error
  console.log(number, other, none);
}
