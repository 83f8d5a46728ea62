import { resolve } from "node:path";

export default {
  // Wherever it is published: in a bucket, below a prefix.
  base: "./",
  build: {
    sourcemap: true,
    // Each file by itself, however small.
    assetsInlineLimit: 0,
    rollupOptions: {
      input: [resolve(import.meta.dirname, "index.html"), resolve(import.meta.dirname, "editor.html")],
    },
  },
};
