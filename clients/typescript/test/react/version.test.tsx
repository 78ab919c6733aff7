// @vitest-environment jsdom

import { render } from "@testing-library/react";
import { useId, version } from "react";
import { version as domVersion } from "react-dom";
import { expect, test } from "vitest";

/** Another React than that of the library that renders would have no hooks. */
function Marked() {
  return <i id={useId()} />;
}

test("the hooks beside are tried with the React of their project", () => {
  expect(render(<Marked />).container.querySelector("i")?.id).not.toBe("");
  expect([version, domVersion].map((one) => one.split(".")[0])).toStrictEqual(
    Array(2).fill(process.env.REACT),
  );
});
