import { HeadwaterClient } from "headwater";
import { HeadwaterProvider } from "headwater/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./style.css";

// `?server=ws://host:port` in the address shows another server's flights.
const address = new URLSearchParams(location.search).get("server") ?? "ws://localhost:4510";
const client = new HeadwaterClient(address);

const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <HeadwaterProvider client={client}>
        <App />
      </HeadwaterProvider>
    </StrictMode>,
  );
}
