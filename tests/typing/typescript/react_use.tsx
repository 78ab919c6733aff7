/** Components over the types of `examples/chat` and of `right/`. */

import { functionReference, type Page, type PageOptions } from "headwater";
import { useAction, useMutation, usePaginatedQuery, useQueries, useQuery, useSuspenseQuery } from "headwater/react";
import { fetchQuery, preloadQuery } from "headwater/server";
import { api as chat, type Id, type Message } from "./chat_api";
import { api } from "./right_api";

const log = functionReference<"query", { options: PageOptions }, Page<Message>>("messages:log");

export function Right({ channel }: { channel: Id<"channels"> | null }) {
  const messages = useQuery(chat.messages.list, channel === null ? "skip" : { channel });
  const me = useQuery(api.users.me);
  const send = useMutation(chat.messages.send).withOptimisticUpdate((store, { channel, author, body }) => {
    const shown = store.getQuery(chat.messages.list, { channel });
    const sent: Message = { _id: "new" as Id<"messages">, _creationTime: 0, channel, author, body };
    store.setQuery(chat.messages.list, { channel }, [sent, ...(shown ?? [])]);
  });
  const both = useQueries({ me: { query: api.users.me, args: {} } });
  const name: string | undefined = both.me instanceof Error ? both.me.message : both.me?.name;
  return (
    <ul onClick={() => channel && send({ channel, author: me?.name ?? "", body: "hi" })}>
      {name}
      {messages?.map((message) => <li key={message._id}>{message.body}</li>)}
    </ul>
  );
}

export function RightPages({ channel }: { channel: Id<"channels"> }) {
  const { results, status, loadMore } = usePaginatedQuery(api.messages.pages, { channel }, { initialNumItems: 20 });
  const all: readonly Message[] = useSuspenseQuery(chat.messages.list, { channel });
  const bodies = results.map((row) => (row.body.type === "text" ? row.body.text : row.body.url));
  return <button onClick={() => loadMore(10)}>{status === "CanLoadMore" ? bodies.join() : all.length}</button>;
}

export async function rightServer(channel: Id<"channels">) {
  const options = { url: "http://localhost:4510" };
  const messages: readonly Message[] = await fetchQuery(chat.messages.list, { channel }, options);
  return [messages, await preloadQuery(chat.messages.list, { channel }, options)] as const;
}

export function Wrong({ channel, message }: { channel: Id<"channels">; message: Id<"messages"> }) {
  useQuery(chat.messages.list); // error
  useQuery(chat.messages.list, { channel: message }); // error
  useQuery(chat.messages.list, { channel, limt: 1 }); // error
  useQuery(chat.messages.list, "skipped"); // error
  useQuery(chat.messages.send, { channel, author: "ada", body: "hi" }); // error
  useQuery(chat.messages.list, { channel }).length; // error
  useQuery(chat.messages.list, { channel })?.[0]?.bdy; // error
  useQueries({ one: { query: chat.messages.list, args: { chanel: channel } } }); // error
  useMutation(chat.messages.list); // error
  useAction(chat.messages.send); // error
  const send = useMutation(chat.messages.send);
  void send({ channel, author: "ada" }); // error
  void send(); // error
  send.withOptimisticUpdate((store, args) => {
    store.setQuery(chat.messages.list, { channel }, [{ body: args.body }]); // error
    store.getQuery(chat.messages.list, { channel: args.author }); // error
    args.text; // error
  });
  usePaginatedQuery(chat.messages.list, { channel }, { initialNumItems: 5 }); // error
  usePaginatedQuery(api.messages.pages, {}, { initialNumItems: 5 }); // error
  usePaginatedQuery(log, {}, { initialNumItems: 5 });
  usePaginatedQuery(log, { channel }, { initialNumItems: 5 }); // error
  const { results, status } = usePaginatedQuery(api.messages.pages, { channel }, { initialNumItems: 5 });
  results[0]?.text; // error
  status === "Loading"; // error
  void fetchQuery(chat.messages.list, { channel }); // error
  return <button onClick={send}>send</button>; // error
}
