import { expect, expectTypeOf, test } from "vitest";
import {
  type AnyReference,
  type Args,
  type FunctionReference,
  functionName,
  functionReference,
  type Given,
  type Id,
  makeApi,
  pageArgument,
  type Returns,
} from "../src/index.js";

interface Api {
  messages: {
    list: FunctionReference<"query", { channel: Id<"channels">; limit?: number }, string[]>;
    name: FunctionReference<"query", Record<never, never>, string>;
    send: FunctionReference<"mutation", { body: string }, null>;
  };
  admin: { users: { list: FunctionReference<"query", Record<never, never>, null> } };
}
const api = makeApi<Api>();

test("a path stands for a function, also one that is called `name`", () => {
  expect(functionName(api.messages.list)).toBe("messages:list");
  expect(functionName(api.messages.name)).toBe("messages:name");
  expect(functionName(api.admin.users.list)).toBe("admin/users:list");
  expect(functionName(functionReference<"query">("a/b:c"))).toBe("a/b:c");
});

test("a path is the same object each time, so that React sees that nothing changed", () => {
  expect(api.messages.list).toBe(api.messages.list);
});

test("the argument for pages is called as the api says, else options", () => {
  const told = makeApi<Api>({ "admin/users:list": "how" });
  expect(pageArgument(told.admin.users.list)).toBe("how");
  expect(pageArgument(told.messages.list)).toBe("options");
  expect(pageArgument(functionReference<"query">("a/b:c"))).toBe("options");
  expect(pageArgument(functionReference<"query">("a/b:c", "how"))).toBe("how");
});

test("what is no function is refused", () => {
  expect(() => functionName(api.messages as unknown as AnyReference)).toThrow("expected a function");
});

test("a reference carries arguments and result as types", () => {
  expectTypeOf<Args<Api["messages"]["list"]>>().toEqualTypeOf<{ channel: Id<"channels">; limit?: number }>();
  expectTypeOf<Returns<Api["messages"]["list"]>>().toEqualTypeOf<string[]>();
  expectTypeOf<Given<Api["messages"]["name"]>>().toEqualTypeOf<[args?: Record<never, never>]>();
  expectTypeOf<Given<Api["messages"]["send"]>>().toEqualTypeOf<[args: { body: string }]>();
  expectTypeOf<Api["messages"]["list"]>().toExtend<AnyReference<"query">>();
  expectTypeOf<Api["messages"]["send"]>().not.toExtend<AnyReference<"query">>();
  expectTypeOf<Id<"users">>().not.toExtend<Id<"channels">>();
  expectTypeOf<Id<"users">>().toExtend<string>();
});
