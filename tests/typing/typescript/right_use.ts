/** Code against the types of `right/`: pages, tagged structs, enums, times, values of any kind. */

import type { HeadwaterClient, Page, Value } from "headwater";
import { api, type Doc, type Id, type Message } from "./right_api";

export async function right(client: HeadwaterClient, channel: Id<"channels">): Promise<Date | null> {
  await client.mutation(api.messages.send, { channel, body: { type: "text", text: "hi" } });
  const page: Page<Message> = await client.query(api.messages.pages, { channel, options: { numItems: 5, cursor: null } });
  const body = page.page[0]?.body;
  const width = body?.type === "image" ? body.width : body?.text.length;
  const likes: number = (page.page[0]?.reactions["+1"] ?? 0) + 1;
  const extra: Value = page.page[0]?.extra ?? null;
  const whole: Value = page.page[0] ?? null;
  const me = await client.query(api.users.me);
  if (me !== null && me.role === "admin") {
    console.log(me.profile.city?.toUpperCase(), me.born, width, likes, extra, whole, page.isDone);
  }
  await client.mutation(api.users.enrol, { user: { name: "Ada", email: "", token: "" }, seal: new Uint8Array(1) });
  if (me !== null) {
    await client.mutation(api.users.enrol, { user: { ...me, name: "Eve" } });
  }
  return await client.query(api.messages.newest, { channel });
}

export async function wrong(client: HeadwaterClient, channel: Id<"channels">): Promise<void> {
  const page = await client.query(api.messages.pages, { channel, options: { numItems: 5 } });
  page.page[0]?.text; // error
  page.items; // error
  await client.mutation(api.messages.send, { channel, body: { type: "image", text: "hi" } }); // error
  await client.mutation(api.messages.send, { channel, body: { type: "text" } }); // error
  await client.mutation(api.users.enrol, { user: { name: "Ada", email: "" } }); // error
  const me: Doc<"users"> | null = await client.query(api.users.me);
  me.role; // error
  if (me !== null) {
    console.log(me.role === "guest"); // error
    await client.query(api.messages.list, { channel: me.favourite }); // error
    me.profile.city.length; // error
  }
  await client.query(api.messages.pages, { channel, options: { numItems: "5" } }); // error
  await client.mutation(api.messages.expire, { older_than: 1 }); // error
  const message: Doc<"mesages"> | undefined = page.page[0]; // error
  const extra: string = page.page[0]?.extra; // error
  console.log(message, extra);
}
