/** A real daemon beside a test, and links to it that can be cut; see tests/support/daemon_peer.py. */

import type { ChildProcess } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { type ClientOptions, HeadwaterClient } from "../../src/index.js";
import { startPython } from "./python.js";

type Command = "key" | "kill" | "stop" | "start" | "pause" | "resume" | "ill" | "whole" | "call";

export class Daemon {
  /** Addresses: of the daemon, through links that fall ill when told to, through links that are cut. */
  addresses: Record<"daemon" | "ill" | "cut", string> = { daemon: "", ill: "", cut: "" };
  private readonly child: ChildProcess;
  private readonly lines: Interface;
  private readonly clients: HeadwaterClient[] = [];
  private readonly waiting: ((line: string) => void)[] = [];
  private readonly ended: Promise<unknown>;

  private constructor(bundle: string, options: readonly string[]) {
    this.child = startPython("support.daemon_peer", bundle, ...options);
    if (this.child.stdout === null) {
      throw new Error("a child without a standard output");
    }
    this.lines = createInterface({ input: this.child.stdout });
    this.lines.on("line", (line) => this.waiting.shift()?.(line));
    this.ended = new Promise((resolve) => this.child.once("close", resolve));
  }

  /** Start one, with a bundle of tests/support/bundles deployed. */
  static async start(bundle: string, ...options: string[]): Promise<Daemon> {
    const daemon = new Daemon(bundle, options);
    const ports = (await daemon.answer()) as Record<"daemon" | "ill" | "cut", number>;
    for (const way of ["daemon", "ill", "cut"] as const) {
      daemon.addresses[way] = `ws://127.0.0.1:${ports[way]}`;
    }
    return daemon;
  }

  /** Return a client, which is closed with the daemon. */
  client(way: "daemon" | "ill" | "cut" = "daemon", options: ClientOptions = {}): HeadwaterClient {
    const client = new HeadwaterClient(this.addresses[way], { log: () => {}, ...options });
    this.clients.push(client);
    return client;
  }

  /** Have the peer carry out a command and return its answer. */
  async do(command: Command, ...words: unknown[]): Promise<unknown> {
    this.child.stdin?.write(`${JSON.stringify([command, ...words])}\n`);
    const answer = await this.answer();
    if (typeof answer === "object" && answer !== null && "error" in answer) {
      throw new Error(String(answer.error));
    }
    return answer;
  }

  /** End all of it. */
  async end(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
    this.child.stdin?.end();
    await this.ended;
  }

  private async answer(): Promise<unknown> {
    const line = await Promise.race([
      new Promise<string>((resolve) => this.waiting.push(resolve)),
      this.ended.then(() => Promise.reject(new Error("the daemon's peer has ended"))),
    ]);
    return JSON.parse(line);
  }
}
