/** Renders components over a client, and waits for what they show. */

import { act, cleanup, render, waitFor } from "@testing-library/react";
import { Component, type ReactNode, StrictMode } from "react";
import type { HeadwaterClient, HeadwaterError } from "../../src/index.js";
import { HeadwaterProvider } from "../../src/react/index.js";

const PATIENCE_MS = 20_000; // of a machine that does other things as well
const LOOK_MS = 10;

/** Everything in strict mode, in which React does twice what must not matter twice. */
export function rendered(client: HeadwaterClient, children: ReactNode) {
  const whole = (inner: ReactNode) => (
    <StrictMode>
      <HeadwaterProvider client={client}>{inner}</HeadwaterProvider>
    </StrictMode>
  );
  const { container, rerender, unmount } = render(whole(children));
  return {
    text: () => container.textContent ?? "",
    container,
    rerender: (inner: ReactNode) => rerender(whole(inner)),
    unmount,
  };
}

/** Wait until something holds, letting React render meanwhile. */
export async function until(holds: () => boolean, what: () => string = () => ""): Promise<void> {
  await waitFor(
    () => {
      if (!holds()) {
        throw new Error(`waited in vain; there is ${what()}`);
      }
    },
    { timeout: PATIENCE_MS, interval: LOOK_MS },
  );
}

/** Let React do what is due. */
export async function settle(): Promise<void> {
  await act(() => new Promise((resolve) => setTimeout(resolve, LOOK_MS)));
}

/** Wait until a rendered text is this. */
export async function shows(view: { text(): string }, text: string): Promise<void> {
  await until(
    () => view.text() === text,
    () => view.text(),
  );
}

/** Shows the code of what a component below throws. */
export class Boundary extends Component<
  { readonly children: ReactNode },
  { readonly error?: HeadwaterError }
> {
  override state: { readonly error?: HeadwaterError } = {};

  static getDerivedStateFromError(error: HeadwaterError) {
    return { error };
  }

  override render(): ReactNode {
    return this.state.error === undefined ? this.props.children : `failed: ${this.state.error.code}`;
  }
}

export { act, cleanup };
