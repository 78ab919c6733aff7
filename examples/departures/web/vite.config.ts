import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // The client is a linked folder of this repository, which has a React of its own for its tests.
  resolve: { dedupe: ["react", "react-dom"] },
});
